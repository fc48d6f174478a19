# Databricks notebook source
# MAGIC %md
# MAGIC # 01 · Kafka → bronze
# MAGIC Reads new records of the topic into `bronze_events`, unchanged, each exactly once.
# MAGIC
# MAGIC | parameter | meaning |
# MAGIC |---|---|
# MAGIC | `catalog` | Unity Catalog name; `spark_catalog` on a laptop |
# MAGIC | `schema` | schema of all tables |
# MAGIC | `config_dir` | folder of `event_contract.yml` |
# MAGIC | `runs_dir` | folder of what runs leave behind; empty: the volume `runs` of the schema |
# MAGIC | `run_id` | names this run in the log tables |
# MAGIC | `checkpoint_dir` | folder of the streams' checkpoints; empty: the volume `checkpoints` of the schema |
# MAGIC | `secret_scope` | secret scope that holds the `KAFKA_*` settings |
# MAGIC | `kafka_topic` | topic; empty: `KAFKA_TOPIC` of the secret scope, else `stream-input` |
# MAGIC | `kafka_options` | further options of Spark's Kafka source, as JSON |
# MAGIC | `max_offsets_per_trigger` | how many records a micro-batch may have at most |

# COMMAND ----------

# MAGIC %run ./_library

# COMMAND ----------

dbutils.widgets.text("catalog", "main")
dbutils.widgets.text("schema", "streaming")
dbutils.widgets.text("config_dir", "../config")
dbutils.widgets.text("runs_dir", "")
dbutils.widgets.text("run_id", "by-hand")
dbutils.widgets.text("checkpoint_dir", "")
dbutils.widgets.text("secret_scope", "streaming-pipeline")
dbutils.widgets.text("kafka_topic", "")
dbutils.widgets.text("kafka_options", "{}")
dbutils.widgets.text("max_offsets_per_trigger", "1000000")

# COMMAND ----------

from streaming_pipeline.bronze.ingest import stream_kafka_to_bronze
from streaming_pipeline.core.run_log import run_task
from streaming_pipeline.core.settings import Settings

settings = Settings.from_notebook(dbutils, secrets="KAFKA_")
result = run_task("01_stream_kafka_to_bronze", stream_kafka_to_bronze, spark, settings)
dbutils.jobs.taskValues.set("records", result.records)
dbutils.jobs.taskValues.set("note", result.note)
result

# COMMAND ----------

display(spark.table(settings.table("bronze_events")).where("ingested_at > current_timestamp() - INTERVAL 1 HOUR").limit(10))
