# Databricks notebook source
# MAGIC %md
# MAGIC # Produce synthetic events
# MAGIC Puts realistic events, with known faults among them, on the topic.
# MAGIC
# MAGIC | parameter | meaning |
# MAGIC |---|---|
# MAGIC | `catalog` | Unity Catalog name; `spark_catalog` on a laptop |
# MAGIC | `secret_scope` | secret scope that holds the `KAFKA_…`, `SMTP_…` and `ALERT_…` settings |
# MAGIC | `kafka_topic` | topic; empty: `KAFKA_TOPIC` of the secret scope, else `stream-input` |
# MAGIC | `count` | how many events to produce |
# MAGIC | `seed` | the same seed makes the same events |

# COMMAND ----------

# MAGIC %run ./_library

# COMMAND ----------

from streaming_pipeline.tasks import run

result = run("produce_synthetic_events", spark, dbutils)
result
