# Databricks notebook source
# MAGIC %md
# MAGIC # Table maintenance
# MAGIC Compacts the closed dates of silver and gold (OPTIMIZE, ZORDER) and removes files that no kept version needs (VACUUM).
# MAGIC Never beside the main job; a conflict fails this task, and its retry goes on.
# MAGIC
# MAGIC | parameter | meaning |
# MAGIC |---|---|
# MAGIC | `catalog` | Unity Catalog name; `spark_catalog` on a laptop |
# MAGIC | `schema` | schema of all tables |
# MAGIC | `config_dir` | folder of the event contract, the alert rules and the prices; of several, the first that has a file |
# MAGIC | `runs_dir` | folder of what runs leave behind; empty: the volume `runs` of the schema |
# MAGIC | `run_id` | names this run in the log tables |

# COMMAND ----------

# MAGIC %run ./_library

# COMMAND ----------

from streaming_pipeline.tasks import run

result = run("maintain_tables", spark, dbutils)

# COMMAND ----------

display(spark.createDataFrame(result))
