# Databricks notebook source
# MAGIC %md
# MAGIC # 03 · Monitor silver
# MAGIC Gives two verdicts. The pipeline's: is every record accounted for, how fresh and how late are events, does anything wait on the
# MAGIC topic? It is one row of `monitor_logs`. The data's: the task profiles what is new (`profile_metrics`), compares it with the
# MAGIC baseline (`drift_metrics`), and searches it for strange events, spikes and silences (`anomaly_logs`).
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
# MAGIC | `freshness_limit_seconds` | if the newest event is older than this, the pipeline is Unhealthy |
# MAGIC | `window_minutes` | length of the windows that are profiled and compared |
# MAGIC | `baseline_windows` | how many clean windows, the first of the stream, make the baseline that drift is measured against |
# MAGIC | `rejected_limit_pct` | if a larger share of the new records is rejected (in per cent), that is a finding |
# MAGIC | `repeated_limit_pct` | if a larger share of the new records is repeated (in per cent), that is a finding |

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
dbutils.widgets.text("rejected_limit_pct", "5")
dbutils.widgets.text("repeated_limit_pct", "20")

# COMMAND ----------

from streaming_pipeline.core.run_log import run_task
from streaming_pipeline.core.settings import Settings
from streaming_pipeline.monitoring.monitor import monitor_silver_events

settings = Settings.from_notebook(dbutils, secrets="KAFKA_")
result = run_task("03_monitor_silver_events", monitor_silver_events, spark, settings)
dbutils.jobs.taskValues.set("records", result.records)
dbutils.jobs.taskValues.set("note", result.note)
print(result.note)

# COMMAND ----------

from streaming_pipeline.queries import query

spark.sql(f"USE `{settings.catalog}`.`{settings.schema}`")
display(spark.sql(query("monitor_logs")))
