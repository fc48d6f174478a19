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
# MAGIC | `config_dir` | folder of `event_contract.yml` |
# MAGIC | `runs_dir` | folder of what runs leave behind; empty: the volume `runs` of the schema |
# MAGIC | `run_id` | names this run in the log tables |
# MAGIC | `checkpoint_dir` | folder of the streams' checkpoints; empty: the volume `checkpoints` of the schema |
# MAGIC | `secret_scope` | secret scope that holds the `KAFKA_*` settings |
# MAGIC | `kafka_topic` | topic; empty: `KAFKA_TOPIC` of the secret scope, else `stream-input` |
# MAGIC | `kafka_options` | further options of Spark's Kafka source, as JSON |
# MAGIC | `max_offsets_per_trigger` | how many records a commit may have at most |
# MAGIC | `from_time` | the first record's time, such as 2026-03-01T00:00:00Z |
# MAGIC | `dry_run` | `true`: say which offsets would be read, and write nothing |

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
dbutils.widgets.text("from_time", "")
dbutils.widgets.text("dry_run", "false")

# COMMAND ----------

from functools import partial

from streaming_pipeline.bronze.backfill import backfill_bronze
from streaming_pipeline.core.errors import UsageError
from streaming_pipeline.core.run_log import run_task
from streaming_pipeline.core.settings import Settings, parse_flag, parse_time

settings = Settings.from_notebook(dbutils, besides=("from_time", "dry_run"), secrets="KAFKA_")
since = parse_time("from_time", dbutils.widgets.get("from_time"))
if since is None:
    raise UsageError("Parameter 'from_time' is empty: give the time from which the topic is read again, such as 2026-03-01T00:00:00Z.")
backfill = partial(backfill_bronze, since=since, dry_run=parse_flag("dry_run", dbutils.widgets.get("dry_run")))
result = run_task("backfill_bronze", backfill, spark, settings)
dbutils.jobs.taskValues.set("records", result.records)
dbutils.jobs.taskValues.set("note", result.note)
result
