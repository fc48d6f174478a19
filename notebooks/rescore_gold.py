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
# MAGIC | `config_dir` | folder of `event_contract.yml` |
# MAGIC | `runs_dir` | folder of what runs leave behind; empty: the volume `runs` of the schema |
# MAGIC | `run_id` | names this run in the log tables |
# MAGIC | `model_name` | the registered model, in catalog and schema |
# MAGIC | `from_time` | begin of the period, in event time, such as 2026-03-01T00:00:00Z |
# MAGIC | `until_time` | its end |
# MAGIC | `version` | version of the model; empty: the champion |

# COMMAND ----------

# MAGIC %run ./_library

# COMMAND ----------

dbutils.widgets.text("catalog", "main")
dbutils.widgets.text("schema", "streaming")
dbutils.widgets.text("config_dir", "../config")
dbutils.widgets.text("runs_dir", "")
dbutils.widgets.text("run_id", "by-hand")
dbutils.widgets.text("model_name", "iforest_silver_anomaly_detector")
dbutils.widgets.text("from_time", "")
dbutils.widgets.text("until_time", "")
dbutils.widgets.text("version", "")

# COMMAND ----------

from functools import partial

from streaming_pipeline.core.run_log import run_task
from streaming_pipeline.core.settings import Settings
from streaming_pipeline.gold.rescore import Choice, rescore_gold

OWN = ("from_time", "until_time", "version")
settings = Settings.from_notebook(dbutils, besides=OWN)
choice = Choice.from_texts(*map(dbutils.widgets.get, OWN))
result = run_task("rescore_gold", partial(rescore_gold, choice=choice), spark, settings)
dbutils.jobs.taskValues.set("records", result.records)
dbutils.jobs.taskValues.set("note", result.note)
result
