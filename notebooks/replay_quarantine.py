# Databricks notebook source
# MAGIC %md
# MAGIC # Replay quarantine
# MAGIC Checks open records of `quarantined_events` against the corrected contract again: valid events go to `silver_events`,
# MAGIC re-deliveries to `duplicate_events`, the rest stays. The next run of the main job scores the new events. Never beside the main job.
# MAGIC
# MAGIC | parameter | meaning |
# MAGIC |---|---|
# MAGIC | `catalog` | Unity Catalog name; `spark_catalog` on a laptop |
# MAGIC | `schema` | schema of all tables |
# MAGIC | `config_dir` | folder of the event contract, the alert rules and the prices; of several, the first that has a file |
# MAGIC | `runs_dir` | folder of what runs leave behind; empty: the volume `runs` of the schema |
# MAGIC | `run_id` | names this run in the log tables |
# MAGIC | `dedupe_window_days` | a re-delivery is found this many days around its event's date |
# MAGIC | `reason` | a reason such as `wrong_type:value`, or `wrong_type` for every field; empty: any |
# MAGIC | `from_time` | rejected at or after this time, such as 2026-03-01T00:00:00Z; empty: any |
# MAGIC | `until_time` | rejected before this time; empty: any |
# MAGIC | `dry_run` | `true`: say what would happen, and write nothing |

# COMMAND ----------

# MAGIC %run ./_library

# COMMAND ----------

from streaming_pipeline.tasks import run

result = run("replay_quarantine", spark, dbutils)
result

# COMMAND ----------

from streaming_pipeline.queries import query

display(spark.sql(query("quarantine_reasons")))
