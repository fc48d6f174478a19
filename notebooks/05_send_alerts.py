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
# MAGIC | `config_dir` | folder of the event contract, the alert rules and the prices; of several, the first that has a file |
# MAGIC | `runs_dir` | folder of what runs leave behind; empty: the volume `runs` of the schema |
# MAGIC | `run_id` | names this run in the log tables |
# MAGIC | `secret_scope` | secret scope that holds the `KAFKA_…`, `SMTP_…` and `ALERT_…` settings |
# MAGIC | `task_states` | how the tasks before this one ended, as JSON |
# MAGIC | `workspace_url` | leads to this run, with `job_id` |
# MAGIC | `job_id` | leads to this run, with `workspace_url` |

# COMMAND ----------

# MAGIC %run ./_library

# COMMAND ----------

from streaming_pipeline.tasks import run

result = run("05_send_alerts", spark, dbutils)

# COMMAND ----------

columns = ("created_at", "severity", "anomaly_type", "message", "status", "channel", "attempts", "sent_at", "reason")
display(spark.table("alert_outbox").select(*columns).orderBy("created_at", ascending=False).limit(20))

# COMMAND ----------

from streaming_pipeline.alerts.send import fail_if_something_is_wrong

fail_if_something_is_wrong(result)
