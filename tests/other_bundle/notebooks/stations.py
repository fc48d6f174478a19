# Databricks notebook source
COLDEST = {"Oslo": 4, "Tromsø": -9}
