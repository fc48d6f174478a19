# Databricks notebook source
# MAGIC %md
# MAGIC # Is there a champion?
# MAGIC Says whether a model can score yet; if not, the job trains one first.
# MAGIC
# MAGIC | parameter | meaning |
# MAGIC |---|---|
# MAGIC | `catalog` | Unity Catalog name; `spark_catalog` on a laptop |
# MAGIC | `schema` | schema of all tables |
# MAGIC | `model_name` | the registered model, in catalog and schema |

# COMMAND ----------

# MAGIC %run ./_library

# COMMAND ----------

from streaming_pipeline.tasks import run

result = run("check_champion", spark, dbutils)
print(result)
