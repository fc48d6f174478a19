# Databricks notebook source
# MAGIC %md
# MAGIC # Backfill bronze
# MAGIC Reads the topic again from a given time, and adds the records that `bronze_events` lacks. The next run of the main
# MAGIC job processes them.
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
# MAGIC | `from_time` | the first record's time, such as 2026-03-01T00:00:00Z |
# MAGIC | `dry_run` | `true`: say what would happen, and write nothing |

# COMMAND ----------

# MAGIC %run ./_library

# COMMAND ----------

from streaming_pipeline.tasks import run

result = run("backfill_bronze", spark, dbutils)
result
