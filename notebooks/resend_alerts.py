# Databricks notebook source
# MAGIC %md
# MAGIC # Try dead alerts again
# MAGIC Alerts that could not be delivered (DEAD in `alert_outbox`) become PENDING: the next run of the main job sends them.
# MAGIC
# MAGIC | parameter | meaning |
# MAGIC |---|---|
# MAGIC | `catalog` | Unity Catalog name; `spark_catalog` on a laptop |
# MAGIC | `schema` | schema of all tables |
# MAGIC | `config_dir` | folder of `prices.yml` |
# MAGIC | `runs_dir` | folder of what runs leave behind; empty: the volume `runs` of the schema |
# MAGIC | `run_id` | names this run in the log tables |

# COMMAND ----------

# MAGIC %run ./_library

# COMMAND ----------

dbutils.widgets.text("catalog", "main")
dbutils.widgets.text("schema", "streaming")
dbutils.widgets.text("config_dir", "../config")
dbutils.widgets.text("runs_dir", "")
dbutils.widgets.text("run_id", "by-hand")

# COMMAND ----------

from streaming_pipeline.alerts.outbox import resend
from streaming_pipeline.core.run_log import run_task
from streaming_pipeline.core.settings import Settings

settings = Settings.from_notebook(dbutils)
result = run_task("resend_alerts", resend, spark, settings)
dbutils.jobs.taskValues.set("records", result)
dbutils.jobs.taskValues.set("note", "the next run of the main job tries them again" if result else "no alert is DEAD")
result
