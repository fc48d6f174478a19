"""What do partitions and ZORDER save a reader? The same events in six layouts, and what three questions have to read of each.

The events arrive hour by hour, each batch a commit of two tasks, and one in fifty is late, by up to two days: so a file written in one
hour holds events of several dates. OPTIMIZE's target is a quarter of a date, so that a date keeps several files, as a large one does.
"""

import argparse
import os
import shutil
from datetime import date, timedelta
from pathlib import Path
from statistics import median
from urllib.parse import unquote, urlparse

from bench import fresh_home, seconds, table, write_section
from pyspark.sql import DataFrame, SparkSession

from laptop.services.spark import start_session

FIRST_DAY = date(2026, 3, 1)
TARGET_SIZE = "spark.databricks.delta.optimize.maxFileSize"
DESCRIBED = {
    "plain": "no partitions, as written",
    "plain_optimize": "no partitions, OPTIMIZE",
    "plain_zorder": "no partitions, ZORDER BY time",
    "dates": "by date, as written",
    "dates_optimize": "by date, OPTIMIZE",
    "dates_zorder": "by date, ZORDER BY time (silver)",
    "dates_score": "by date, ZORDER BY score (gold)",
}
OPTIMIZE = {"optimize": "", "zorder": "ZORDER BY (`timestamp`)", "score": "ZORDER BY (anomaly_score)"}


def hour_of_events(spark: SparkSession, hour: int, rows: int) -> DataFrame:
    """The events that arrive in one hour, of which one in fifty happened up to 48 hours before."""
    micros = f"({hour} * 3600 + pmod(xxhash64(id), 3600)) * 1000000 + pmod(xxhash64(id, 1), 1000000)"
    late = "IF(pmod(xxhash64(id, 'late'), 50) = 0, pmod(xxhash64(id, 2), 172800), 0) * 1000000"
    return (
        spark.range(hour * rows, (hour + 1) * rows, 1, 2)
        .selectExpr("id", f"timestamp_micros(unix_micros(TIMESTAMP'{FIRST_DAY} 00:00:00Z') + {micros} - {late}) AS timestamp")
        .selectExpr(
            "md5(CAST(id AS STRING)) AS event_id",
            "element_at(array('click', 'purchase', 'view'), CAST(id % 3 + 1 AS INT)) AS event_type",
            "timestamp",
            "round(pmod(xxhash64(id, 3), 100000) / 100, 2) AS value",
            "pmod(xxhash64(id, 4), 100000) / 100000 - 0.001 AS anomaly_score",
            "CAST(timestamp AS DATE) AS event_date",
        )
    )


def create(spark: SparkSession, folder: Path, name: str) -> None:
    """One empty table."""
    partitioned, counted = ("PARTITIONED BY (event_date)", "") if name == "dates" else ("", ",event_date")
    spark.sql(
        f"CREATE TABLE delta.`{folder / name}` (event_id STRING, event_type STRING, timestamp TIMESTAMP, value DOUBLE, "
        f"anomaly_score DOUBLE, event_date DATE) USING DELTA {partitioned} "
        f"TBLPROPERTIES (delta.dataSkippingStatsColumns = 'timestamp,anomaly_score{counted}')"
    )


def conditions(days: int) -> dict[str, str]:
    """What is asked for, as a WHERE clause."""
    day = FIRST_DAY + timedelta(days=days // 2)
    return {
        "one date": f"event_date = DATE'{day}'",
        "one hour": f"timestamp >= TIMESTAMP'{day} 12:00:00Z' AND timestamp < TIMESTAMP'{day} 13:00:00Z'",
        "flagged of one date": f"event_date = DATE'{day}' AND anomaly_score < 0",
    }


def ask(spark: SparkSession, path: Path, condition: str, runs: int) -> tuple[int, float, float, int]:
    """Files and MiB of the files that are read, the median of the seconds that it takes, and the rows found."""
    frame = lambda: spark.sql(f"SELECT * FROM delta.`{path}` WHERE {condition}")  # noqa: E731
    rows = frame().count()  # not timed: the first reads the log and compiles
    files = [unquote(urlparse(file).path) for file in frame().inputFiles()]
    read = lambda: frame().write.format("noop").mode("overwrite").save()  # noqa: E731
    took = median(seconds(read)[0] for _ in range(runs))
    return len(files), sum(map(os.path.getsize, files)) / 2**20, took, rows


def main() -> None:
    """Run all, and write the section of RESULTS.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=3_000_000)
    parser.add_argument("--days", type=int, default=14)
    parser.add_argument("--runs", type=int, default=5, help="runs of each question that are timed")
    options = parser.parse_args()
    folder = fresh_home("layout")
    spark = start_session(folder)
    hours = options.days * 24
    for name in ("plain", "dates"):
        create(spark, folder, name)
        for hour in range(hours):
            hour_of_events(spark, hour, options.rows // hours).write.format("delta").mode("append").save(str(folder / name))
    whole = spark.sql(f"DESCRIBE DETAIL delta.`{folder / 'plain'}`").first()["sizeInBytes"]
    spark.conf.set(TARGET_SIZE, str(whole // options.days // 4))
    answers = []
    for name, described in DESCRIBED.items():
        base, _, how = name.partition("_")
        if how:
            shutil.copytree(folder / base, folder / name)
            spark.sql(f"OPTIMIZE delta.`{folder / name}` {OPTIMIZE[how]}")
        detail = spark.sql(f"DESCRIBE DETAIL delta.`{folder / name}`").first()
        found = [ask(spark, folder / name, condition, options.runs) for condition in conditions(options.days).values()]
        answers.append((described, detail["numFiles"], detail["sizeInBytes"] / 2**20, found))
    spark.stop()
    found_rows = [[answer[3] for answer in found] for *_, found in answers]
    assert all(rows == found_rows[0] for rows in found_rows) and all(found_rows[0]), found_rows
    body = [
        [described, f"{files:,}", f"{size:.0f}", *(f"{read:,} · {size:.1f} · {took:.2f}" for read, size, took, _ in found)]
        for described, files, size, found in answers
    ]
    asked = ", ".join(f"{name} {rows:,}" for name, rows in zip(conditions(options.days), found_rows[0], strict=True))
    write_section(
        "Layout",
        f"{options.rows // hours * hours:,} events of {options.days} dates in {hours} hourly batches. Of each question: files read · their "
        f"MiB · seconds (medians of {options.runs} runs). Rows found: {asked}.\n\n"
        + table(["layout", "files", "MiB", *conditions(options.days)], body),
    )


if __name__ == "__main__":
    main()
