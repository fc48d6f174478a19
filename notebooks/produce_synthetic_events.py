# Databricks notebook source
# MAGIC %md
# MAGIC # Produce synthetic events
# MAGIC Puts realistic events, with known faults among them, on the topic.
# MAGIC
# MAGIC | parameter | meaning |
# MAGIC |---|---|
# MAGIC | `catalog` | Unity Catalog name; `spark_catalog` on a laptop |
# MAGIC | `secret_scope` | secret scope that holds the `KAFKA_*` settings |
# MAGIC | `kafka_topic` | topic; empty: `KAFKA_TOPIC` of the secret scope, else `stream-input` |
# MAGIC | `count` | how many events to produce |
# MAGIC | `seed` | the same seed makes the same events |

# COMMAND ----------

# MAGIC %run ./_library

# COMMAND ----------

dbutils.widgets.text("catalog", "main")
dbutils.widgets.text("secret_scope", "streaming-pipeline")
dbutils.widgets.text("kafka_topic", "")
dbutils.widgets.text("count", "10000")
dbutils.widgets.text("seed", "0")

# COMMAND ----------

from streaming_pipeline.core.settings import Settings
from streaming_pipeline.events import synthetic
from streaming_pipeline.events.producer import produce

settings = Settings.from_notebook(dbutils, besides=("count", "seed"), secrets="KAFKA_")
events = synthetic.generate(int(dbutils.widgets.get("count")), seed=int(dbutils.widgets.get("seed")))
produce(settings.kafka, events)
