# Databricks notebook source
# MAGIC %md
# MAGIC # Which version scores?
# MAGIC Makes another version of the model champion, in one step: one that the gate refused, or the previous champion. It scores new events
# MAGIC from now on; run the job `rescore_gold` to score earlier ones again.
# MAGIC
# MAGIC | parameter | meaning |
# MAGIC |---|---|
# MAGIC | `catalog` | Unity Catalog name; `spark_catalog` on a laptop |
# MAGIC | `schema` | schema of all tables |
# MAGIC | `config_dir` | folder of `prices.yml` |
# MAGIC | `runs_dir` | folder of what runs leave behind; empty: the volume `runs` of the schema |
# MAGIC | `run_id` | names this run in the log tables |
# MAGIC | `model_name` | the registered model, in catalog and schema |
# MAGIC | `version` | a number; `previous`: the previous champion; empty: change nothing, list the versions |

# COMMAND ----------

# MAGIC %run ./_library

# COMMAND ----------

dbutils.widgets.text("catalog", "main")
dbutils.widgets.text("schema", "streaming")
dbutils.widgets.text("config_dir", "../config")
dbutils.widgets.text("runs_dir", "")
dbutils.widgets.text("run_id", "by-hand")
dbutils.widgets.text("model_name", "iforest_silver_anomaly_detector")
dbutils.widgets.text("version", "")

# COMMAND ----------

from streaming_pipeline.core.run_log import run_task
from streaming_pipeline.core.settings import Settings
from streaming_pipeline.gold.registry import set_champion, versions

settings = Settings.from_notebook(dbutils, besides=("version",))
version = dbutils.widgets.get("version")
if version.strip():
    result = run_task("set_champion", lambda _, settings: set_champion(settings, version), spark, settings)
    dbutils.jobs.taskValues.set("note", result.note)
    print(result.note)

# COMMAND ----------

import pandas as pd

display(pd.DataFrame(versions(settings)))
