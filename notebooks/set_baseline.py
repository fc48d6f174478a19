# Databricks notebook source
# MAGIC %md
# MAGIC # Set the baseline
# MAGIC Makes a new baseline. From the next monitoring run on, drift of `silver_events` is measured against it. `baselines` keeps the
# MAGIC older ones.
# MAGIC
# MAGIC | parameter | meaning |
# MAGIC |---|---|
# MAGIC | `catalog` | Unity Catalog name; `spark_catalog` on a laptop |
# MAGIC | `schema` | schema of all tables |
# MAGIC | `config_dir` | folder of the event contract, the alert rules and the prices; of several, the first that has a file |
# MAGIC | `runs_dir` | folder of what runs leave behind; empty: the volume `runs` of the schema |
# MAGIC | `run_id` | names this run in the log tables |
# MAGIC | `window_minutes` | length of the windows that are profiled and compared |
# MAGIC | `baseline_windows` | how many clean windows, the first of the stream, make the baseline that drift is measured against |
# MAGIC | `name` | what it is called |
# MAGIC | `from_time` | begin of the period, such as 2026-03-01T00:00:00Z; empty: the newest `baseline_windows` |
# MAGIC | `until_time` | its end |

# COMMAND ----------

# MAGIC %run ./_library

# COMMAND ----------

from streaming_pipeline.tasks import run

result = run("set_baseline", spark, dbutils)
result
