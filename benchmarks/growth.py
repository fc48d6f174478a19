"""How does the time of a silver batch grow with the table? The same batches on a table of one day and on one of many, in one session.

Both tables are filled by the real transform and the real stage, all their days in one batch: one or two files a date, as
`table_maintenance` leaves closed dates (24 batches a day would take hours to fill). The batches alternate between the tables, and all
their events are of the newest day. After each, its records are taken out of all tables again, so that the next meets the same table.
"""

import argparse
from dataclasses import replace
from datetime import date, timedelta
from statistics import median

from bench import fresh_home, own_settings, seconds, table, write_section
from pyspark.sql import DataFrame, SparkSession

from laptop.services.spark import start_session
from streaming_pipeline.bronze.ingest import to_bronze
from streaming_pipeline.core import tables
from streaming_pipeline.core.contract import load_contract
from streaming_pipeline.core.settings import Settings
from streaming_pipeline.silver.cleanse import SilverCounts, cleanse_bronze_to_silver

NEWEST_DAY = date(2026, 3, 31)
GOAL = 1.15
TABLES = ("bronze_events", *tables.PLACES)


def kafka_records(spark: SparkSession, first: int, count: int, days: int, daily: int) -> DataFrame:
    """The records with the offsets from `first`, as Spark's Kafka source gives them; one file for each day's worth.

    `days` days of `daily` records each are the table's history; what comes behind it is of the newest day. Of a hundred records one
    is malformed and two repeat an event: that of the record before or, behind the history, one of the history's newest day.
    """
    history = days * daily
    # The event's number is the offset of the record that brought it first.
    number = f"""CASE WHEN id % 50 = 1 AND (id % 100 = 1 OR id < {history}) THEN id - 1
        WHEN id % 100 = 51 THEN {history - daily} + id % {daily} - 1
        ELSE id END"""
    midnight = f"unix_micros(TIMESTAMP'{NEWEST_DAY - timedelta(days=days - 1)} 00:00:00Z')"
    time = lambda n: (  # noqa: E731
        f"timestamp_micros({midnight} + least({n} div {daily}, {days - 1}) * 86400000000 + ({n} % {daily}) * 86400000000 div {daily})"
    )
    payload = f"""to_json(named_struct(
        'event_id', md5(CAST(number AS STRING)),
        'event_type', element_at(array('click', 'purchase', 'view'), CAST(number % 3 + 1 AS INT)),
        'timestamp', date_format({time("number")}, "yyyy-MM-dd'T'HH:mm:ss.SSS'Z'"),
        'value', CAST(pmod(xxhash64(number), 100000) / 100 AS STRING)))"""
    return (
        spark.range(first, first + count, 1, max(1, count // daily))
        .selectExpr("id", f"{number} AS number")
        .selectExpr(
            "CAST(NULL AS BINARY) AS key",
            f"CAST(left({payload}, IF(id % 100 = 2, 20, 1000)) AS BINARY) AS value",
            "'events' AS topic",
            "0 AS partition",
            "id AS offset",
            f"{time('id')} + INTERVAL 5 SECONDS AS timestamp",
            "0 AS timestampType",
        )
    )


def run_batch(spark: SparkSession, settings: Settings, first: int, count: int, days: int, daily: int) -> tuple[float, SilverCounts]:
    """Append the records to bronze, and time the silver stage over them; ends the program if it counts wrong."""
    before = tables.row_count(spark, settings, "silver_events") if first else 0
    contract = load_contract(settings.contract_path)
    tables.create_missing(spark, settings, tables.record_tables(contract))
    tables.append(settings, "bronze_events", to_bronze(kafka_records(spark, first, count, days, daily), contract, "topic"))
    took, added = seconds(lambda: cleanse_bronze_to_silver(spark, replace(settings, run_id=f"{settings.schema}-{first}")))
    expected = SilverCounts(records=count * 97 // 100, quarantined=count // 100, duplicates=count * 2 // 100)
    assert added == expected, (added, expected)
    assert tables.row_count(spark, settings, "silver_events") == before + expected.records
    return took, added


def take_out(spark: SparkSession, settings: Settings, first: int) -> None:
    """Take the records from offset `first` on out of all tables."""
    for name in TABLES:
        spark.sql(f"DELETE FROM {settings.table(name)} WHERE offset >= {first}")


def main() -> None:
    """Run all, and write the section of RESULTS.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=50_000, help="records of a batch")
    parser.add_argument("--daily", type=int, default=50_000, help="records of a day")
    parser.add_argument("--days", type=int, default=100, help="days of the large table")
    parser.add_argument("--rounds", type=int, default=7, help="batches that are timed on each table")
    parser.add_argument("--warm-up", type=int, default=3, help="batches before these")
    options = parser.parse_args()
    if options.batch % 100 or options.daily % 100:
        parser.error("--batch and --daily must be multiples of 100")
    home = fresh_home("growth")
    spark = start_session(home)
    days = {"small": 1, "large": options.days}
    settings = {name: own_settings(home, name) for name in days}
    took: dict[str, list[dict[str, float]]] = {name: [] for name in days}
    for name in days:
        run_batch(spark, settings[name], 0, days[name] * options.daily, days[name], options.daily)
    files = {name: len(spark.table(settings[name].table("silver_events")).inputFiles()) for name in days}
    rows = {name: tables.row_count(spark, settings[name], "silver_events") for name in days}
    for number in range(options.warm_up + options.rounds):
        for name in sorted(days, reverse=number % 2 == 0):  # each is first in turn
            first = days[name] * options.daily + number * options.batch
            whole, added = run_batch(spark, settings[name], first, options.batch, days[name], options.daily)
            take_out(spark, settings[name], first)
            assert tables.row_count(spark, settings[name], "silver_events") == rows[name]
            if number >= options.warm_up:
                steps = {step.task: step.elapsed_seconds for step in added.steps}
                took[name].append({"whole batch": whole, **steps, "outside the steps": whole - sum(steps.values())})
    spark.stop()

    def line(what: str) -> list[object]:
        small, large = (median(batch[what] for batch in took[name]) for name in ("small", "large"))
        goal = f"≤ {GOAL}" if what == "whole batch" else ""
        return [what, f"{small:.2f}", f"{large:.2f}", f"{large / small:.2f}", goal]

    spread = {name: sorted(batch["whole batch"] for batch in took[name]) for name in days}
    write_section(
        "Growth",
        f"Silver batches of {options.batch:,} records of the newest day (1 % malformed, 2 % re-delivered) on a silver table of one day "
        f"({rows['small']:,} events, {files['small']} files) and on one of {options.days} days ({rows['large']:,} events, "
        f"{files['large']} files), medians of {options.rounds} batches each. Every batch added exactly its valid events that were new.\n\n"
        + table(["", "small, seconds", "large, seconds", "large / small", "goal"], [line(what) for what in took["small"][0]])
        + "\n\nWhole batches, quickest and slowest: "
        + ", ".join(f"{name} {spread[name][0]:.2f} to {spread[name][-1]:.2f} s" for name in days)
        + ".",
    )


if __name__ == "__main__":
    main()
