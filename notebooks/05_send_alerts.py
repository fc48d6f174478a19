# Databricks notebook source
# MAGIC %md
# MAGIC # 05 · Alerts
# MAGIC Turns findings of monitoring and failed tasks of this run into alerts in `alert_outbox`, by the rules of `alert_rules.yml`, and
# MAGIC sends those that are due. Fails if a task of this run failed, so that a broken run never reads as a success, and if an alert could
# MAGIC not be delivered.
# MAGIC
# MAGIC | parameter | meaning |
# MAGIC |---|---|
# MAGIC | `catalog` | Unity Catalog name; `spark_catalog` on a laptop |
# MAGIC | `schema` | schema of all tables |
# MAGIC | `config_dir` | folder of `alert_rules.yml` |
# MAGIC | `runs_dir` | folder of what runs leave behind; empty: the volume `runs` of the schema |
# MAGIC | `run_id` | names this run in the log tables |
# MAGIC | `secret_scope` | scope of the `SMTP_…` and `ALERT_…` settings |
# MAGIC | `task_states` | how the tasks before this one ended, as JSON |
# MAGIC | `workspace_url`, `job_id` | lead to this run |

# COMMAND ----------

# MAGIC %run ./_library

# COMMAND ----------

dbutils.widgets.text("catalog", "main")
dbutils.widgets.text("schema", "streaming")
dbutils.widgets.text("config_dir", "../config")
dbutils.widgets.text("runs_dir", "")
dbutils.widgets.text("run_id", "by-hand")
dbutils.widgets.text("secret_scope", "streaming-pipeline")
dbutils.widgets.text("task_states", "{}")
dbutils.widgets.text("workspace_url", "")
dbutils.widgets.text("job_id", "")

# COMMAND ----------

import json
from functools import partial

from streaming_pipeline.alerts.send import fail_if_something_is_wrong, run_link, send_alerts
from streaming_pipeline.core.run_log import run_task
from streaming_pipeline.core.settings import Settings, read_secrets

# It must tell of a failure though that was a parameter of another task, or a scope that cannot be read.
settings = Settings.from_notebook(dbutils, only=("catalog", "schema", "config_dir", "runs_dir", "run_id", "secret_scope"))
secrets = partial(read_secrets, dbutils, settings.secret_scope, ("SMTP_", "ALERT_"))
states = json.loads(dbutils.widgets.get("task_states"))
link = run_link(settings, dbutils.widgets.get("workspace_url"), dbutils.widgets.get("job_id"))
result = run_task("05_send_alerts", partial(send_alerts, states=states, read_secrets=secrets, link=link), spark, settings)
dbutils.jobs.taskValues.set("records", result.records)
dbutils.jobs.taskValues.set("note", result.note)

# COMMAND ----------

columns = ("created_at", "severity", "anomaly_type", "message", "status", "channel", "attempts", "sent_at", "reason")
display(spark.table(settings.table("alert_outbox")).select(*columns).orderBy("created_at", ascending=False).limit(20))

# COMMAND ----------

fail_if_something_is_wrong(result)
