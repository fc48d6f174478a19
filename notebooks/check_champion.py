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

dbutils.widgets.text("catalog", "main")
dbutils.widgets.text("schema", "streaming")
dbutils.widgets.text("model_name", "iforest_silver_anomaly_detector")

# COMMAND ----------

from streaming_pipeline.core.settings import Settings
from streaming_pipeline.gold.registry import champion_version

settings = Settings.from_notebook(dbutils)
version = champion_version(settings)
dbutils.jobs.taskValues.set("exists", "true" if version else "false")
print(f"{settings.model_full_name}: " + (f"version {version} is champion" if version else "no champion yet"))
