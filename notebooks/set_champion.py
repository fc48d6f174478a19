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
# MAGIC | `config_dir` | folder of the event contract, the alert rules and the prices; of several, the first that has a file |
# MAGIC | `runs_dir` | folder of what runs leave behind; empty: the volume `runs` of the schema |
# MAGIC | `run_id` | names this run in the log tables |
# MAGIC | `model_name` | the registered model, in catalog and schema |
# MAGIC | `version` | a number; `previous`: the previous champion; empty: change nothing, list the versions |

# COMMAND ----------

# MAGIC %run ./_library

# COMMAND ----------

from streaming_pipeline.tasks import run

result = run("set_champion", spark, dbutils)

# COMMAND ----------

import pandas as pd

display(pd.DataFrame(result))
