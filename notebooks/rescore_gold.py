# Databricks notebook source
# MAGIC %md
# MAGIC # Score a period of gold again
# MAGIC Scores the events of a period with the champion, or with another version, in one commit. The table's history keeps the old scores
# MAGIC for 90 days: `SELECT … FROM gold_anomaly_predictions VERSION AS OF n`. Never beside the main job.
# MAGIC
# MAGIC | parameter | meaning |
# MAGIC |---|---|
# MAGIC | `catalog` | Unity Catalog name; `spark_catalog` on a laptop |
# MAGIC | `schema` | schema of all tables |
# MAGIC | `config_dir` | folder of the event contract, the alert rules and the prices; of several, the first that has a file |
# MAGIC | `runs_dir` | folder of what runs leave behind; empty: the volume `runs` of the schema |
# MAGIC | `run_id` | names this run in the log tables |
# MAGIC | `model_name` | the registered model, in catalog and schema |
# MAGIC | `from_time` | begin of the period, in event time, such as 2026-03-01T00:00:00Z |
# MAGIC | `until_time` | its end |
# MAGIC | `version` | version of the model; empty: the champion |

# COMMAND ----------

# MAGIC %run ./_library

# COMMAND ----------

from streaming_pipeline.tasks import run

result = run("rescore_gold", spark, dbutils)
result
