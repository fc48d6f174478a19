# Databricks notebook source
# MAGIC %md # Measure

# COMMAND ----------

# MAGIC %run ./stations

# COMMAND ----------

dbutils.widgets.text("city", "")
dbutils.jobs.taskValues.set("celsius", COLDEST[dbutils.widgets.get("city")])
