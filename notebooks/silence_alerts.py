# Databricks notebook source
# MAGIC %md
# MAGIC # Silence a rule
# MAGIC Silences a rule of `alert_rules.yml` for a while: its alerts are MUTED in `alert_outbox`. The newest order for a rule counts.
# MAGIC
# MAGIC | parameter | meaning |
# MAGIC |---|---|
# MAGIC | `catalog` | Unity Catalog name; `spark_catalog` on a laptop |
# MAGIC | `schema` | schema of all tables |
# MAGIC | `config_dir` | folder of `alert_rules.yml` |
# MAGIC | `runs_dir` | folder of what runs leave behind; empty: the volume `runs` of the schema |
# MAGIC | `run_id` | names this run in the log tables |
# MAGIC | `rule` | the rule's name |
# MAGIC | `duration` | such as 30m, 4h or 7d; 0m ends a silence |

# COMMAND ----------

# MAGIC %run ./_library

# COMMAND ----------

dbutils.widgets.text("catalog", "main")
dbutils.widgets.text("schema", "streaming")
dbutils.widgets.text("config_dir", "../config")
dbutils.widgets.text("runs_dir", "")
dbutils.widgets.text("run_id", "by-hand")
dbutils.widgets.text("rule", "")
dbutils.widgets.text("duration", "4h")

# COMMAND ----------

from functools import partial

from streaming_pipeline.alerts.silence import parse_for, silence
from streaming_pipeline.core.run_log import run_task
from streaming_pipeline.core.settings import Settings

settings = Settings.from_notebook(dbutils, besides=("rule", "duration"))
order = {"rule": dbutils.widgets.get("rule"), "duration": parse_for(dbutils.widgets.get("duration"))}
result = run_task("silence_alerts", partial(silence, **order), spark, settings)
dbutils.jobs.taskValues.set("note", result.note)
result
