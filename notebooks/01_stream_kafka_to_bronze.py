# Databricks notebook source
# MAGIC %md
# MAGIC # 01 · Kafka → bronze
# MAGIC Reads new records of the topic into `bronze_events`, unchanged, each exactly once.
# MAGIC
# MAGIC | parameter | meaning |
# MAGIC |---|---|
# MAGIC | `catalog` | Unity Catalog name; `spark_catalog` on a laptop |
# MAGIC | `schema` | schema of all tables |
# MAGIC | `config_dir` | folder of the event contract, the alert rules and the prices; of several, the first that has a file |
# MAGIC | `runs_dir` | folder of what runs leave behind; empty: the volume `runs` of the schema |
# MAGIC | `run_id` | names this run in the log tables |
# MAGIC | `checkpoint_dir` | folder of the streams' checkpoints; empty: the volume `checkpoints` of the schema |
# MAGIC | `secret_scope` | secret scope that holds the `KAFKA_…`, `SMTP_…` and `ALERT_…` settings |
# MAGIC | `kafka_topic` | topic; empty: `KAFKA_TOPIC` of the secret scope, else `stream-input` |
# MAGIC | `kafka_options` | further options of Spark's Kafka source, as JSON |
# MAGIC | `max_offsets_per_trigger` | how many records a micro-batch may have at most |

# COMMAND ----------

# MAGIC %run ./_library

# COMMAND ----------

from streaming_pipeline.tasks import run

result = run("01_stream_kafka_to_bronze", spark, dbutils)
result

# COMMAND ----------

display(spark.table("bronze_events").where("ingested_at > current_timestamp() - INTERVAL 1 HOUR").limit(10))
