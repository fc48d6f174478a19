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
# MAGIC | `config_dir` | folder of the event contract, the alert rules and the prices; of several, the first that has a file |
# MAGIC | `runs_dir` | folder of what runs leave behind; empty: the volume `runs` of the schema |
# MAGIC | `run_id` | names this run in the log tables |
# MAGIC | `model_name` | the registered model, in catalog and schema |
# MAGIC | `experiment` | MLflow experiment of the trainings |
# MAGIC | `features` | the model's inputs; empty: every number of the event contract, and `timestamp_unix` |
# MAGIC | `contamination` | share of usual events that the model may flag |

# COMMAND ----------

# MAGIC %run ./_library

# COMMAND ----------

from streaming_pipeline.tasks import run

result = run("train_anomaly_detector", spark, dbutils)
print(result.summary)

# COMMAND ----------

for figure in result.figures.values():
    display(figure)
