# Databricks notebook source
# MAGIC %md
# MAGIC # 05 · Alerts
# MAGIC Writes an alert to `alert_outbox` if a task of this run failed, and then fails itself, so that a broken run never
# MAGIC reads as a success.
# MAGIC
# MAGIC | parameter | meaning |
# MAGIC |---|---|
# MAGIC | `catalog` | Unity Catalog name; `spark_catalog` on a laptop |
# MAGIC | `schema` | schema of all tables |
# MAGIC | `config_dir` | folder of `event_contract.yml` |
# MAGIC | `runs_dir` | folder of what runs leave behind; empty: the volume `runs` of the schema |
# MAGIC | `run_id` | names this run in the log tables |
# MAGIC | `task_states` | how the tasks before this one ended, as JSON |

# COMMAND ----------

# MAGIC %run ./_library

# COMMAND ----------

dbutils.widgets.text("catalog", "main")
dbutils.widgets.text("schema", "streaming")
dbutils.widgets.text("config_dir", "../config")
dbutils.widgets.text("runs_dir", "")
dbutils.widgets.text("run_id", "by-hand")
dbutils.widgets.text("task_states", "{}")

# COMMAND ----------

import json
from functools import partial

from streaming_pipeline.alerts.outbox import fail_if_run_failed, record_failures
from streaming_pipeline.run_log import run_task
from streaming_pipeline.settings import Settings

# It must tell of a failure though that was a parameter of another task.
settings = Settings.from_notebook(dbutils, only=("catalog", "schema", "config_dir", "runs_dir", "run_id"))
states = json.loads(dbutils.widgets.get("task_states"))
result = run_task("05_send_alerts", partial(record_failures, states=states), spark, settings)
dbutils.jobs.taskValues.set("records", result.records)

# COMMAND ----------

display(spark.table(settings.table("alert_outbox")).orderBy("created_at", ascending=False).limit(20))

# COMMAND ----------

fail_if_run_failed(result)
