# Databricks notebook source
# MAGIC %md
# MAGIC # Explore the results
# MAGIC This notebook only reads. The first table has both verdicts of each monitoring run: `status` is the pipeline's, `incidents` counts
# MAGIC what happened in the data.
# MAGIC
# MAGIC | parameter | meaning |
# MAGIC |---|---|
# MAGIC | `catalog` | Unity Catalog name; `spark_catalog` on a laptop |
# MAGIC | `schema` | schema of all tables |
# MAGIC | `runs_dir` | folder of what runs leave behind; empty: the volume `runs` of the schema |

# COMMAND ----------

# MAGIC %run ../_library

# COMMAND ----------

dbutils.widgets.text("catalog", "main")
dbutils.widgets.text("schema", "streaming")
dbutils.widgets.text("runs_dir", "")

# COMMAND ----------

from pathlib import Path

from streaming_pipeline.core.settings import Settings
from streaming_pipeline.queries import query

settings = Settings.from_notebook(dbutils)
spark.sql(f"USE `{settings.catalog}`.`{settings.schema}`")
display(spark.sql(query("monitor_logs")))

# COMMAND ----------

# MAGIC %md
# MAGIC ## The strangest events

# COMMAND ----------

# MAGIC %sql
# MAGIC SELECT * FROM gold_anomaly_predictions WHERE anomaly_flag = -1 ORDER BY anomaly_score ASC LIMIT 20

# COMMAND ----------

# MAGIC %md
# MAGIC ## Anomaly scores
# MAGIC Below 0 is an anomaly.

# COMMAND ----------

import matplotlib.pyplot as plt

histogram = spark.sql(query("score_histogram")).toPandas()
figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
axes.bar(histogram["score"], histogram["events"], width=0.009)
axes.axvline(0, color="crimson", linestyle="--")
axes.set(xlabel="anomaly_score", ylabel="events", yscale="log")
display(figure)

# COMMAND ----------

# MAGIC %md
# MAGIC ## The plan of the silver write
# MAGIC As the newest run that wrote silver kept it.

# COMMAND ----------

plans = sorted(Path(settings.runs_dir).glob("*/silver_plan.txt"), key=lambda path: path.stat().st_mtime)
print(plans[-1].read_text() if plans else "No run has written silver yet.")

# COMMAND ----------

# MAGIC %md
# MAGIC ## Time travel
# MAGIC Silver as it was at its first version, and its history.

# COMMAND ----------

display(spark.sql("SELECT count(*) AS events_at_version_0 FROM silver_events VERSION AS OF 0"))
display(spark.sql("DESCRIBE HISTORY silver_events"))
