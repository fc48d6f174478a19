"""What a task writes of its cost, and the queries over that and over Databricks' bills."""

import re
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from bronze_rows import T0
from pyspark.sql import functions as F

from streaming_pipeline.core import tables
from streaming_pipeline.core.prices import load_prices
from streaming_pipeline.core.run_log import TaskResult, log_task
from streaming_pipeline.queries import query

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "config" / "prices.yml"


def logged(spark, settings, name="a_task"):
    log_task(name, lambda: TaskResult(1), spark, settings)
    return spark.table(settings.table("cluster_logs")).where(f"task_name = '{name}'").first()


def test_a_task_says_what_it_cost_also_in_a_table_from_before_there_were_prices(spark, offline_settings):
    old = replace(tables.CLUSTER_LOGS, columns=tables.CLUSTER_LOGS.columns[:8])
    tables.append_rows(spark, offline_settings, old, [{"task_name": "long_ago", "run_id": "first"}])
    row = logged(spark, offline_settings)
    assert (row["notes"], row["price_per_hour"], row["cost"], row["currency"]) == ("SUCCESS", 0, 0, "USD")
    assert spark.table(offline_settings.table("cluster_logs")).where("task_name = 'long_ago'").first()["cost"] is None


def test_a_cluster_is_priced_by_its_tags_and_what_has_no_price_is_noted(spark, offline_settings, monkeypatch, tmp_path):
    monkeypatch.setenv("DATABRICKS_RUNTIME_VERSION", "18.0")
    cluster = spark.newSession()
    for tag, value in {"clusterName": "job-1-run-2-main", "clusterNodeType": "Standard_D4ds_v5", "clusterWorkers": "2"}.items():
        cluster.conf.set(f"spark.databricks.clusterUsageTags.{tag}", value)
    row = logged(cluster, offline_settings, "on_a_cluster")
    price = load_prices(SHIPPED).per_hour("Standard_D4ds_v5", 2)
    assert (row["cluster_name"], row["workers"], row["price_per_hour"]) == ("job-1-run-2-main", 2, price)
    assert row["cost"] == pytest.approx(price * (row["end_time"] - row["start_time"]).total_seconds() / 3600)
    assert logged(spark.newSession(), offline_settings, "on_serverless")["price_per_hour"] == 1.35

    cluster.conf.set("spark.databricks.clusterUsageTags.clusterNodeType", "Large")
    row = logged(cluster, offline_settings, "on_another")
    assert row["cost"] is None and row["notes"].startswith("SUCCESS; cost unknown: ") and "prices.yml has no price" in row["notes"]
    (tmp_path / "prices.yml").write_text("currency: USD\n")
    row = logged(spark, replace(offline_settings, config_dir=str(tmp_path)), "by_a_broken_list")
    assert row["cost"] is None and row["notes"].endswith("prices.yml: the file: 'machines' is missing.")


def test_a_run_costs_from_its_first_task_to_its_last_one(spark, offline_settings):
    def task(run_id, cluster, begin, end, price=3.6, **others):
        times = {"start_time": T0 + timedelta(seconds=begin), "end_time": T0 + timedelta(seconds=end)}
        where = {"cluster_name": cluster, "node_type": "small", "workers": 1, "price_per_hour": price, "currency": "EUR"}
        return {"task_name": "x", "run_id": run_id, **where, **times, **others}

    rows = [
        # Two of the tasks at once, and a pause in between.
        *(task("1", "main", begin, end) for begin, end in ((0, 100), (100, 200), (100, 300), (400, 500))),
        *(task("2", "main", begin, begin + 10, price=None, currency=None) for begin in (1000, 1010)),
        # The same run again the day after, after a repair, on a new cluster.
        *(task("3", cluster, begin, begin + 100) for cluster, begin in (("a", 2000), ("b", 90_000))),
        *(task("by-hand", "main", begin, begin + 10) for begin in (0, 900_000)),
    ]
    tables.append_rows(spark, offline_settings, tables.CLUSTER_LOGS, rows)
    spark.sql(f"USE `{offline_settings.schema}`")
    found = [tuple(row) for row in spark.sql(query("run_cost")).collect()]
    at = [(T0 + timedelta(seconds=second)).replace(tzinfo=None) for second in (2000, 1000, 0)]
    assert [(*row[:1], row[1].replace(tzinfo=None), *row[2:]) for row in found] == [
        ("3", at[0], 200, "small", 1, 0.2, "EUR"),
        ("2", at[1], 20, "small", 1, None, None),
        ("1", at[2], 500, "small", 1, 0.5, "EUR"),
    ]


def test_the_bill_is_read_by_run_and_by_tag(spark, offline_settings):
    """On tables of the shape of `system.billing`, as Databricks documents it."""
    tables.append_rows(spark, offline_settings, tables.CLUSTER_LOGS, [{"run_id": "11"}, {"run_id": "12"}])
    session, now = spark.newSession(), datetime.now(UTC).replace(minute=30)
    today, project = now.date(), re.search(r"^  name: (\S+)", (ROOT / "databricks.yml").read_text(), re.MULTILINE)[1]
    tagged = {"project": project, "environment": "prod"}

    def used(sku, quantity, run_id, tags, day=today, record_type="ORIGINAL"):
        return ("AZURE", sku, "DBU", quantity, now, day, tags, ("7" if run_id else None, run_id), record_type)

    usage = [
        used("JOBS", 2.0, "11", tagged),
        used("JOBS", 1.0, "11", tagged),
        # A correction takes back and states anew.
        used("JOBS", -1.0, "11", tagged, record_type="RETRACTION"),
        used("JOBS", 0.5, "11", tagged, record_type="RESTATEMENT"),
        used("SERVERLESS", 4.0, "12", {}),
        used("ALL_PURPOSE", 1.0, None, tagged),
        used("JOBS", 9.0, "99", {"project": "another"}),
        used("JOBS", 9.0, "11", tagged, day=today - timedelta(days=40)),
    ]
    session.createDataFrame(
        usage,
        "cloud string, sku_name string, usage_unit string, usage_quantity double, usage_end_time timestamp, usage_date date, "
        "custom_tags map<string, string>, usage_metadata struct<job_id: string, job_run_id: string>, record_type string",
    ).withColumn("usage_quantity", F.col("usage_quantity").cast("decimal(38, 18)")).createOrReplaceTempView("usage")
    long_ago, yesterday = now - timedelta(days=400), now - timedelta(days=1)

    def price(sku, begin, end, amount):
        return ("AZURE", sku, "DBU", "USD", begin, end, (amount, (amount,)))

    prices = [
        price("JOBS", long_ago, yesterday, "9"),
        price("JOBS", yesterday, None, "0.30"),
        price("SERVERLESS", long_ago, None, "0.45"),
        price("ALL_PURPOSE", long_ago, None, "0.55"),
    ]
    session.createDataFrame(
        prices,
        "cloud string, sku_name string, usage_unit string, currency_code string, price_start_time timestamp, price_end_time timestamp, "
        "pricing struct<default: string, effective_list: struct<default: string>>",
    ).createOrReplaceTempView("list_prices")
    text = query("billed_cost")
    assert text.count("system.billing.") == 2
    session.sql(f"USE `{offline_settings.schema}`")
    found = [tuple(row) for row in session.sql(text.replace("system.billing.", "")).collect()]
    assert {type(row[0]) for row in found} == {date}
    assert [row[1:] for row in found] == [
        (None, "7", "12", "SERVERLESS", 4.0, 1.8, "USD"),
        ("prod", "7", "11", "JOBS", 2.5, 0.75, "USD"),
        ("prod", None, None, "ALL_PURPOSE", 1.0, 0.55, "USD"),
    ]
