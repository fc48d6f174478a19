# Databricks notebook source
# MAGIC %md
# MAGIC # Replay quarantine
# MAGIC Checks open records of `quarantined_events` against the corrected contract again: valid events go to `silver_events`,
# MAGIC re-deliveries to `duplicate_events`, the rest stays. The next run of the main job scores the new events. Never beside the main job.
# MAGIC
# MAGIC | parameter | meaning |
# MAGIC |---|---|
# MAGIC | `catalog` | Unity Catalog name; `spark_catalog` on a laptop |
# MAGIC | `schema` | schema of all tables |
# MAGIC | `config_dir` | folder of `event_contract.yml` |
# MAGIC | `runs_dir` | folder of what runs leave behind; empty: the volume `runs` of the schema |
# MAGIC | `run_id` | names this run in the log tables |
# MAGIC | `dedupe_window_days` | a re-delivery is found this many days around its event's date |
# MAGIC | `reason` | a reason such as `wrong_type:value`, or `wrong_type` for every field; empty: any |
# MAGIC | `from_time` | rejected at or after this time, such as 2026-03-01T00:00:00Z; empty: any |
# MAGIC | `until_time` | rejected before this time; empty: any |
# MAGIC | `dry_run` | `true`: say what would happen, and write nothing |

# COMMAND ----------

# MAGIC %run ./_library

# COMMAND ----------

dbutils.widgets.text("catalog", "main")
dbutils.widgets.text("schema", "streaming")
dbutils.widgets.text("config_dir", "../config")
dbutils.widgets.text("runs_dir", "")
dbutils.widgets.text("run_id", "by-hand")
dbutils.widgets.text("dedupe_window_days", "1")
dbutils.widgets.text("reason", "")
dbutils.widgets.text("from_time", "")
dbutils.widgets.text("until_time", "")
dbutils.widgets.text("dry_run", "false")

# COMMAND ----------

from functools import partial

from streaming_pipeline.core.run_log import run_task
from streaming_pipeline.core.settings import Settings, parse_flag
from streaming_pipeline.silver.replay import Choice, replay_quarantine

own = ("reason", "from_time", "until_time", "dry_run")
settings = Settings.from_notebook(dbutils, besides=own)
reason, from_time, until_time, dry_run = map(dbutils.widgets.get, own)
replay = partial(replay_quarantine, choice=Choice.from_texts(reason, from_time, until_time), dry_run=parse_flag("dry_run", dry_run))
result = run_task("replay_quarantine", replay, spark, settings)
dbutils.jobs.taskValues.set("records", result.records)
dbutils.jobs.taskValues.set("note", result.note)
result

# COMMAND ----------

from streaming_pipeline.queries import query

spark.sql(f"USE `{settings.catalog}`.`{settings.schema}`")
display(spark.sql(query("quarantine_reasons")))
