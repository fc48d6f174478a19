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
# MAGIC | `config_dir` | folder of `event_contract.yml` |
# MAGIC | `runs_dir` | folder of what runs leave behind; empty: the volume `runs` of the schema |
# MAGIC | `run_id` | names this run in the log tables |

# COMMAND ----------

# MAGIC %run ./_library

# COMMAND ----------

dbutils.widgets.text("catalog", "main")
dbutils.widgets.text("schema", "streaming")
dbutils.widgets.text("config_dir", "../config")
dbutils.widgets.text("runs_dir", "")
dbutils.widgets.text("run_id", "by-hand")

# COMMAND ----------

from streaming_pipeline.core.run_log import run_task
from streaming_pipeline.core.settings import Settings
from streaming_pipeline.maintenance import maintain_tables

settings = Settings.from_notebook(dbutils)
result = run_task("maintain_tables", maintain_tables, spark, settings)

# COMMAND ----------

display(spark.createDataFrame(result))
