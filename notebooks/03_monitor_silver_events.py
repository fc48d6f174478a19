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
# MAGIC | `config_dir` | folder of the event contract, the alert rules and the prices; of several, the first that has a file |
# MAGIC | `runs_dir` | folder of what runs leave behind; empty: the volume `runs` of the schema |
# MAGIC | `run_id` | names this run in the log tables |
# MAGIC | `secret_scope` | secret scope that holds the `KAFKA_…`, `SMTP_…` and `ALERT_…` settings |
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

from streaming_pipeline.tasks import run

result = run("03_monitor_silver_events", spark, dbutils)
print(result.note)

# COMMAND ----------

from streaming_pipeline.queries import query

display(spark.sql(query("monitor_logs")))
