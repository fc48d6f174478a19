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
# MAGIC | `config_dir` | folder of the event contract, the alert rules and the prices; of several, the first that has a file |
# MAGIC | `runs_dir` | folder of what runs leave behind; empty: the volume `runs` of the schema |
# MAGIC | `run_id` | names this run in the log tables |
# MAGIC | `checkpoint_dir` | folder of the streams' checkpoints; empty: the volume `checkpoints` of the schema |
# MAGIC | `model_name` | the registered model, in catalog and schema |

# COMMAND ----------

# MAGIC %run ./_library

# COMMAND ----------

from streaming_pipeline.tasks import run

result = run("04_score_silver_to_gold", spark, dbutils)
result

# COMMAND ----------

newest = spark.table("gold_anomaly_predictions").where("scored_at > current_timestamp() - INTERVAL 1 HOUR")
display(newest.where("anomaly_flag = -1").orderBy("anomaly_score").limit(20))
