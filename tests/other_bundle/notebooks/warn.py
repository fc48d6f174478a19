# Databricks notebook source
dbutils.widgets.text("place", "")
print("Stay at home in", dbutils.widgets.get("place"))
dbutils.jobs.taskValues.set("records", 1)
