"""What does `table_maintenance` do? Silver and gold of closed dates with many small files, before and after, in one session.

Two schemas are filled alike: hourly batches, each a commit of two files a date, as hourly runs of the main job leave them. One is
maintained with OPTIMIZE's own target size, which holds a whole date; the other with a target of a third of a date, so that a date
keeps several files, as one of many gigabytes does.
"""

import argparse
from datetime import date, timedelta
from statistics import median

from bench import ROOT, fresh_home, own_settings, seconds, table, write_section
from pyspark.sql import SparkSession

from laptop.services.spark import start_session
from streaming_pipeline.core import tables
from streaming_pipeline.core.contract import Contract, load_contract
from streaming_pipeline.core.settings import Settings
from streaming_pipeline.maintenance import maintain_tables

FIRST_DAY = date(2026, 3, 1)
HOURS = 24
WRITTEN_AT = {"silver_events": "processed_at", "gold_anomaly_predictions": "scored_at"}
TARGET_SIZE = "spark.databricks.delta.optimize.maxFileSize"
TOP_ANOMALIES = ROOT / "src" / "streaming_pipeline" / "queries" / "top_anomalies.sql"


def append_hour(spark: SparkSession, settings: Settings, contract: Contract, hour: int, days: int, rows: int, seed: int) -> None:
    """One hour of every date, `rows` events in all: a commit of silver and one of gold, each of two files a date.

    One event in fifty is late: it happened in any hour before. One in a hundred is an anomaly.
    """
    day = f"TIMESTAMP'{FIRST_DAY} 00:00:00Z' + make_interval(0, 0, 0, CAST(id % {days} AS INT))"
    late = "pmod(xxhash64(id, 'late'), 50) = 0"
    micros = f"IF({late}, pmod(xxhash64(id), {hour * 3600 + 1}), {hour * 3600} + pmod(xxhash64(id), 3600)) * 1000000"
    silver = (
        spark.range(hour * rows, (hour + 1) * rows, 1, 2)
        .selectExpr("id", f"{day} AS midnight", f"rand({seed + hour}) AS uniform")
        .selectExpr(
            "md5(CAST(id AS STRING)) AS event_id",
            "element_at(array('click', 'purchase', 'view'), CAST(id % 3 + 1 AS INT)) AS event_type",
            f"timestamp_micros(unix_micros(midnight) + {micros} + pmod(xxhash64(id), 1000000)) AS timestamp",
            "round(uniform * 1000, 2) AS value",
            "CAST(midnight AS DATE) AS event_date",
            "'topic' AS topic_id",
            "'events' AS topic",
            "0 AS partition",
            "id AS offset",
            f"midnight + make_interval(0, 0, 0, 0, {hour + 1}) AS kafka_timestamp",
            f"'{contract.fingerprint}' AS contract_fingerprint",
            f"midnight + make_interval(0, 0, 0, 0, {hour + 1}) AS processed_at",
        )
    )
    tables.append(settings, "silver_events", silver)
    gold = silver.withColumn("score", silver["value"] / 1000 - 0.01).selectExpr(
        *contract.field_names,
        "unix_micros(timestamp) / 1e6 AS timestamp_unix",
        "score AS anomaly_score",
        "IF(score < 0, -1, 1) AS anomaly_flag",
        "CAST(NULL AS STRING) AS explanation",
        "event_date",
        *tables.COORDINATE_NAMES,
        "'model' AS model_name",
        "'1' AS model_version",
        "processed_at AS scored_at",
    )
    tables.append(settings, "gold_anomaly_predictions", gold)


def fill(spark: SparkSession, settings: Settings, contract: Contract, days: int, rows: int, seed: int) -> None:
    """All hours of all dates."""
    tables.create_missing(spark, settings, tables.all_tables(contract))
    for hour in range(HOURS):
        append_hour(spark, settings, contract, hour, days, rows // HOURS, seed)


def late_event(spark: SparkSession, settings: Settings, name: str) -> None:
    """One more row of the first date, written now."""
    row = spark.table(settings.table(name)).where(f"event_date = DATE'{FIRST_DAY}'").limit(1)
    late = row.selectExpr(f"* EXCEPT ({WRITTEN_AT[name]})", f"current_timestamp() AS {WRITTEN_AT[name]}")
    tables.append(settings, name, late)


def size(spark: SparkSession, settings: Settings, name: str) -> tuple[int, int]:
    """Files and bytes of the table's newest version."""
    detail = spark.sql(f"DESCRIBE DETAIL {settings.table(name)}").first()
    return detail["numFiles"], detail["sizeInBytes"]


def queries(settings: Settings, days: int) -> dict[str, str]:
    """What people ask of the tables; the one event is the first of a date."""
    silver, gold = settings.table("silver_events"), settings.table("gold_anomaly_predictions")
    day = FIRST_DAY + timedelta(days=days // 2)
    return {
        "top anomalies": TOP_ANOMALIES.read_text(encoding="utf-8").replace("gold_anomaly_predictions", gold),
        "silver, one hour of event time": f"SELECT * FROM {silver} WHERE timestamp >= TIMESTAMP'{day} 12:00:00Z' "
        f"AND timestamp < TIMESTAMP'{day} 13:00:00Z'",
        "silver, one event of a date": f"SELECT * FROM {silver} WHERE event_date = DATE'{day}' AND event_id = md5('{days // 2}')",
    }


def ask(spark: SparkSession, query: str, runs: int) -> tuple[float, int, int]:
    """The median of the seconds that the query takes, how many files it reads, and its rows."""
    frame = lambda: spark.sql(query)  # noqa: E731
    rows = len(frame().collect())  # not timed: the first reads the log and compiles
    return median(seconds(lambda: frame().collect())[0] for _ in range(runs)), len(frame().inputFiles()), rows


def main() -> None:
    """Run all, and write the section of RESULTS.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_500_000, help="events of silver, and of gold")
    parser.add_argument("--days", type=int, default=14)
    parser.add_argument("--runs", type=int, default=5, help="runs of each query that are timed")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    if options.rows < HOURS * options.days * 2:
        parser.error("--rows must be at least two for each hour of each date")
    home = fresh_home("maintenance")
    spark = start_session(home)
    whole, large = (own_settings(home, name) for name in ("whole_dates", "large_dates"))
    contract = load_contract(whole.contract_path)
    for settings in (whole, large):
        fill(spark, settings, contract, options.days, options.rows, options.seed)

    sizes, answers, took = [], [], []

    def look() -> None:
        sizes.append([size(spark, whole, name) for name in WRITTEN_AT])
        answers.append({name: ask(spark, query, options.runs) for name, query in queries(whole, options.days).items()})

    def maintain(settings: Settings, run: str) -> None:
        took_seconds, done = seconds(lambda: maintain_tables(spark, settings))
        optimized = {row["table_name"]: row["dates"] for row in done}
        files = {row["table_name"]: f"{row['files_before']:,} → {row['files_after']:,}" for row in done}
        took.append([settings.schema, run, f"{took_seconds:.1f}", *(f"{optimized[name]} · {files[name]}" for name in WRITTEN_AT)])

    look()
    maintain(whole, "first")
    look()
    maintain(whole, "second")
    target = size(spark, large, "silver_events")[1] // options.days // 3
    spark.conf.set(TARGET_SIZE, str(target))
    maintain(large, "first")
    maintain(large, "second")
    for name in WRITTEN_AT:
        late_event(spark, large, name)
    maintain(large, "third, after one late event")
    rows = {(s.schema, name): tables.row_count(spark, s, name) for s in (whole, large) for name in WRITTEN_AT}
    spark.stop()

    written = options.rows // HOURS * HOURS
    assert all(count == written + (schema == "large_dates") for (schema, _), count in rows.items()), rows
    before, after = answers
    assert [rows for _, _, rows in before.values()] == [rows for _, _, rows in after.values()], answers
    assert before["silver, one event of a date"][2] == 1, answers
    asked = [
        [name, f"{before[name][0]:.2f}", f"{after[name][0]:.2f}", f"{before[name][1]:,}", f"{after[name][1]:,}", f"{after[name][2]:,}"]
        for name in before
    ]
    shrunk = [
        [name, f"{was[0]:,}", f"{now[0]:,}", f"{was[1] / 2**20:.1f}", f"{now[1] / 2**20:.1f}"]
        for name, was, now in zip(WRITTEN_AT, *sizes, strict=True)
    ]
    write_section(
        "Maintenance",
        f"{options.days} closed dates of {HOURS} hourly batches, {written:,} events in silver and as many in gold.\n\n"
        + table(["table", "files before", "after", "MiB before", "after"], shrunk)
        + "\n\nQueries before and after, "
        + f"medians of {options.runs} runs:\n\n"
        + table(["query", "seconds before", "after", "files read before", "after", "rows found"], asked)
        + "\n\nRuns of `maintain_tables` (all tables), with the dates that were optimized and the table's files; `large_dates` with a "
        f"target size of {target / 2**20:.2f} MiB, a third of a date of silver:\n\n"
        + table(["schema", "run", "seconds", "silver: dates · files", "gold: dates · files"], took)
        + "\n\nThe files of before stay on the disk, for time travel, until a VACUUM seven days later.",
    )


if __name__ == "__main__":
    main()
