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
# MAGIC | `config_dir` | folder of the event contract, the alert rules and the prices; of several, the first that has a file |
# MAGIC | `runs_dir` | folder of what runs leave behind; empty: the volume `runs` of the schema |
# MAGIC | `run_id` | names this run in the log tables |
# MAGIC | `checkpoint_dir` | folder of the streams' checkpoints; empty: the volume `checkpoints` of the schema |
# MAGIC | `dedupe_window_days` | a re-delivery is found this many days around its event's date |

# COMMAND ----------

# MAGIC %run ./_library

# COMMAND ----------

from streaming_pipeline.tasks import run

result = run("02_bronze_to_silver_cleanse", spark, dbutils)
result

# COMMAND ----------

from streaming_pipeline.queries import query

display(spark.sql(query("quarantine_reasons")))

# COMMAND ----------

display(spark.table("silver_events").where("processed_at > current_timestamp() - INTERVAL 1 HOUR").limit(10))
