# Databricks notebook source
# MAGIC %md
# MAGIC # 02 · Bronze → silver
# MAGIC Takes new records through the event contract: valid events to `silver_events`, one row each, re-deliveries to
# MAGIC `duplicate_events`, the rest to `quarantined_events` with every reason.
# MAGIC
# MAGIC | parameter | meaning |
# MAGIC |---|---|
# MAGIC | `catalog` | Unity Catalog name; `spark_catalog` on a laptop |
# MAGIC | `schema` | schema of all tables |
# MAGIC | `config_dir` | folder of `event_contract.yml` |
# MAGIC | `runs_dir` | folder of what runs leave behind; empty: the volume `runs` of the schema |
# MAGIC | `run_id` | names this run in the log tables |
# MAGIC | `checkpoint_dir` | folder of the streams' checkpoints; empty: the volume `checkpoints` of the schema |
# MAGIC | `dedupe_window_days` | a re-delivery is found this many days around its event's date |

# COMMAND ----------

# MAGIC %run ./_library

# COMMAND ----------

dbutils.widgets.text("catalog", "main")
dbutils.widgets.text("schema", "streaming")
dbutils.widgets.text("config_dir", "../config")
dbutils.widgets.text("runs_dir", "")
dbutils.widgets.text("run_id", "by-hand")
dbutils.widgets.text("checkpoint_dir", "")
dbutils.widgets.text("dedupe_window_days", "1")

# COMMAND ----------

from streaming_pipeline.core.run_log import run_task
from streaming_pipeline.core.settings import Settings
from streaming_pipeline.silver.cleanse import cleanse_bronze_to_silver

settings = Settings.from_notebook(dbutils)
result = run_task("02_bronze_to_silver_cleanse", cleanse_bronze_to_silver, spark, settings)
dbutils.jobs.taskValues.set("records", result.records)
dbutils.jobs.taskValues.set("note", result.note)
result

# COMMAND ----------

from streaming_pipeline.queries import query

spark.sql(f"USE `{settings.catalog}`.`{settings.schema}`")
display(spark.sql(query("quarantine_reasons")))

# COMMAND ----------

display(spark.table("silver_events").where("processed_at > current_timestamp() - INTERVAL 1 HOUR").limit(10))
