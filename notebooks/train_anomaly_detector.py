# Databricks notebook source
# MAGIC %md
# MAGIC # Train the anomaly detector
# MAGIC Fits an IsolationForest on silver, logs it to MLflow, registers it as challenger, and makes it champion if the gate lets it pass.
# MAGIC With fewer than 100 events in silver it trains nothing, and its note says so.
# MAGIC
# MAGIC | parameter | meaning |
# MAGIC |---|---|
# MAGIC | `catalog` | Unity Catalog name; `spark_catalog` on a laptop |
# MAGIC | `schema` | schema of all tables |
# MAGIC | `config_dir` | folder of `event_contract.yml` |
# MAGIC | `runs_dir` | folder of what runs leave behind; empty: the volume `runs` of the schema |
# MAGIC | `run_id` | names this run in the log tables |
# MAGIC | `model_name` | the registered model, in catalog and schema |
# MAGIC | `experiment` | MLflow experiment of the trainings |
# MAGIC | `features` | the model's inputs; empty: every number of the event contract, and `timestamp_unix` |
# MAGIC | `contamination` | share of usual events that the model may flag |

# COMMAND ----------

# MAGIC %run ./_library

# COMMAND ----------

dbutils.widgets.text("catalog", "main")
dbutils.widgets.text("schema", "streaming")
dbutils.widgets.text("config_dir", "../config")
dbutils.widgets.text("runs_dir", "")
dbutils.widgets.text("run_id", "by-hand")
dbutils.widgets.text("model_name", "iforest_silver_anomaly_detector")
dbutils.widgets.text("experiment", "/Shared/streaming-pipeline")
dbutils.widgets.text("features", "")
dbutils.widgets.text("contamination", "0.001")

# COMMAND ----------

from streaming_pipeline.core.run_log import run_task
from streaming_pipeline.core.settings import Settings
from streaming_pipeline.gold.training import train

settings = Settings.from_notebook(dbutils)
result = run_task("train_anomaly_detector", train, spark, settings)
dbutils.jobs.taskValues.set("records", result.records)
dbutils.jobs.taskValues.set("note", result.note)
print(result.summary)

# COMMAND ----------

for figure in result.figures.values():
    display(figure)
