# Databricks notebook source
# MAGIC %md
# MAGIC # 04 · Silver → gold
# MAGIC Scores each new event once, with the champion of `model_name`, into `gold_anomaly_predictions`. Nothing is scored
# MAGIC as long as there are too few events to train a champion.
# MAGIC
# MAGIC | parameter | meaning |
# MAGIC |---|---|
# MAGIC | `catalog` | Unity Catalog name; `spark_catalog` on a laptop |
# MAGIC | `schema` | schema of all tables |
# MAGIC | `config_dir` | folder of `event_contract.yml` |
# MAGIC | `runs_dir` | folder of what runs leave behind; empty: the volume `runs` of the schema |
# MAGIC | `run_id` | names this run in the log tables |
# MAGIC | `checkpoint_dir` | folder of the streams' checkpoints; empty: the volume `checkpoints` of the schema |
# MAGIC | `model_name` | the registered model, in catalog and schema |

# COMMAND ----------

# MAGIC %run ./_library

# COMMAND ----------

dbutils.widgets.text("catalog", "main")
dbutils.widgets.text("schema", "streaming")
dbutils.widgets.text("config_dir", "../config")
dbutils.widgets.text("runs_dir", "")
dbutils.widgets.text("run_id", "by-hand")
dbutils.widgets.text("checkpoint_dir", "")
dbutils.widgets.text("model_name", "iforest_silver_anomaly_detector")

# COMMAND ----------

from streaming_pipeline.core.run_log import run_task
from streaming_pipeline.core.settings import Settings
from streaming_pipeline.gold.score import score_silver_to_gold

settings = Settings.from_notebook(dbutils)
result = run_task("04_score_silver_to_gold", score_silver_to_gold, spark, settings)
dbutils.jobs.taskValues.set("records", result.records)
dbutils.jobs.taskValues.set("note", result.note)
result

# COMMAND ----------

newest = spark.table(settings.table("gold_anomaly_predictions")).where("scored_at > current_timestamp() - INTERVAL 1 HOUR")
display(newest.where("anomaly_flag = -1").orderBy("anomaly_score").limit(20))
