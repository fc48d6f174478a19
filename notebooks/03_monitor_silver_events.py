# Databricks notebook source
# MAGIC %md
# MAGIC # 03 · Monitor silver
# MAGIC Is every record accounted for, how fresh and how late are events, does anything wait on the topic? One row of `monitor_logs`.
# MAGIC What is new is profiled (`profile_metrics`), compared with its baseline (`drift_metrics`), and searched for strange events,
# MAGIC spikes and silences (`anomaly_logs`).
# MAGIC
# MAGIC | parameter | meaning |
# MAGIC |---|---|
# MAGIC | `catalog` | Unity Catalog name; `spark_catalog` on a laptop |
# MAGIC | `schema` | schema of all tables |
# MAGIC | `config_dir` | folder of `event_contract.yml` |
# MAGIC | `runs_dir` | folder of what runs leave behind; empty: the volume `runs` of the schema |
# MAGIC | `run_id` | names this run in the log tables |
# MAGIC | `secret_scope` | secret scope that holds the `KAFKA_*` settings |
# MAGIC | `kafka_topic` | topic; empty: `KAFKA_TOPIC` of the secret scope, else `stream-input` |
# MAGIC | `kafka_options` | further options of Spark's Kafka source, as JSON |
# MAGIC | `late_after_seconds` | an event that reaches Kafka later than this is late |
# MAGIC | `freshness_limit_seconds` | events older than this are Unhealthy |
# MAGIC | `window_minutes` | length of the windows that are profiled and compared |
# MAGIC | `baseline_windows` | drift is measured against so many first clean windows |

# COMMAND ----------

# MAGIC %run ./_library

# COMMAND ----------

dbutils.widgets.text("catalog", "main")
dbutils.widgets.text("schema", "streaming")
dbutils.widgets.text("config_dir", "../config")
dbutils.widgets.text("runs_dir", "")
dbutils.widgets.text("run_id", "by-hand")
dbutils.widgets.text("secret_scope", "streaming-pipeline")
dbutils.widgets.text("kafka_topic", "")
dbutils.widgets.text("kafka_options", "{}")
dbutils.widgets.text("late_after_seconds", "300")
dbutils.widgets.text("freshness_limit_seconds", "7200")
dbutils.widgets.text("window_minutes", "60")
dbutils.widgets.text("baseline_windows", "72")

# COMMAND ----------

from streaming_pipeline.monitoring.monitor import monitor_silver_events
from streaming_pipeline.run_log import run_task
from streaming_pipeline.settings import Settings

settings = Settings.from_notebook(dbutils, secrets="KAFKA_")
result = run_task("03_monitor_silver_events", monitor_silver_events, spark, settings)
dbutils.jobs.taskValues.set("records", result.records)
dbutils.jobs.taskValues.set("note", result.note)

# COMMAND ----------

from streaming_pipeline.queries import query

spark.sql(f"USE `{settings.catalog}`.`{settings.schema}`")
display(spark.sql(query("monitor_logs")))
