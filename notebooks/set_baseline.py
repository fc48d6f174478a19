# Databricks notebook source
# MAGIC %md
# MAGIC # Set the baseline
# MAGIC Makes a new baseline. From the next monitoring run on, drift of `silver_events` is measured against it. `baselines` keeps the
# MAGIC older ones.
# MAGIC
# MAGIC | parameter | meaning |
# MAGIC |---|---|
# MAGIC | `catalog` | Unity Catalog name; `spark_catalog` on a laptop |
# MAGIC | `schema` | schema of all tables |
# MAGIC | `config_dir` | folder of `event_contract.yml` |
# MAGIC | `runs_dir` | folder of what runs leave behind; empty: the volume `runs` of the schema |
# MAGIC | `run_id` | names this run in the log tables |
# MAGIC | `window_minutes` | length of the windows, as the main job has it |
# MAGIC | `baseline_windows` | without a period: how many of the newest clean windows to take |
# MAGIC | `name` | what it is called |
# MAGIC | `from_time` | begin of the period, such as 2026-03-01T00:00:00Z |
# MAGIC | `until_time` | its end |

# COMMAND ----------

# MAGIC %run ./_library

# COMMAND ----------

dbutils.widgets.text("catalog", "main")
dbutils.widgets.text("schema", "streaming")
dbutils.widgets.text("config_dir", "../config")
dbutils.widgets.text("runs_dir", "")
dbutils.widgets.text("run_id", "by-hand")
dbutils.widgets.text("window_minutes", "60")
dbutils.widgets.text("baseline_windows", "72")
dbutils.widgets.text("name", "chosen")
dbutils.widgets.text("from_time", "")
dbutils.widgets.text("until_time", "")

# COMMAND ----------

from functools import partial

from streaming_pipeline.core.run_log import run_task
from streaming_pipeline.core.settings import Settings
from streaming_pipeline.monitoring.baseline import Choice, set_baseline

OWN = ("name", "from_time", "until_time")
settings = Settings.from_notebook(dbutils, besides=OWN)
choice = Choice.from_texts(*map(dbutils.widgets.get, OWN))
result = run_task("set_baseline", partial(set_baseline, choice=choice), spark, settings)
dbutils.jobs.taskValues.set("records", result.records)
dbutils.jobs.taskValues.set("note", result.note)
result
