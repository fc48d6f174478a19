# Databricks notebook source
# MAGIC %md
# MAGIC # Silence a rule
# MAGIC Silences a rule of `alert_rules.yml` for a while: its alerts are MUTED in `alert_outbox`. The newest order for a rule counts.
# MAGIC
# MAGIC | parameter | meaning |
# MAGIC |---|---|
# MAGIC | `catalog` | Unity Catalog name; `spark_catalog` on a laptop |
# MAGIC | `schema` | schema of all tables |
# MAGIC | `config_dir` | folder of the event contract, the alert rules and the prices; of several, the first that has a file |
# MAGIC | `runs_dir` | folder of what runs leave behind; empty: the volume `runs` of the schema |
# MAGIC | `run_id` | names this run in the log tables |
# MAGIC | `rule` | the rule's name in `alert_rules.yml` |
# MAGIC | `duration` | such as 30m, 4h or 7d; 0m ends a silence |

# COMMAND ----------

# MAGIC %run ./_library

# COMMAND ----------

from streaming_pipeline.tasks import run

result = run("silence_alerts", spark, dbutils)
result
