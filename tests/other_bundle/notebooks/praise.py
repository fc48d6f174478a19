# Databricks notebook source
dbutils.jobs.taskValues.set("note", "a fine day")
