"""Nightly maintenance: fewer files on closed dates, the same rows, and the time travel that the tables promise."""

from datetime import UTC, datetime, timedelta

import pytest
from bronze_rows import T0, shipped_contract

from streaming_pipeline.core import tables
from streaming_pipeline.maintenance import longest_ago_first, maintain_tables, remember


def test_the_table_that_was_maintained_longest_ago_comes_first(tmp_path):
    last, every = tmp_path / "a folder" / "maintained.json", [tables.MONITOR_LOGS, tables.DUPLICATE_EVENTS, tables.MONITOR_STATE]
    assert longest_ago_first(every, last) == every
    for table in every[:2]:
        remember(last, table)
    assert longest_ago_first(every, last) == [tables.MONITOR_STATE, tables.MONITOR_LOGS, tables.DUPLICATE_EVENTS]
    remember(last, tables.MONITOR_LOGS)
    assert longest_ago_first(every, last) == [tables.MONITOR_STATE, tables.DUPLICATE_EVENTS, tables.MONITOR_LOGS]


@pytest.mark.parametrize("damaged", [b"", b"[1]", b'{"monitor_logs": 5}', b"\xff"])
def test_a_damaged_memory_costs_the_order_alone(tmp_path, damaged):
    last = tmp_path / "maintained.json"
    last.write_bytes(damaged)
    assert longest_ago_first([tables.MONITOR_STATE, tables.MONITOR_LOGS], last) == [tables.MONITOR_STATE, tables.MONITOR_LOGS]
    remember(last, tables.MONITOR_STATE)
    assert longest_ago_first([tables.MONITOR_STATE, tables.MONITOR_LOGS], last) == [tables.MONITOR_LOGS, tables.MONITOR_STATE]


def test_closed_dates_are_compacted_and_rows_stay(spark, offline_settings, monkeypatch):
    contract = shipped_contract()
    some = [
        tables.silver_events(contract),
        tables.DUPLICATE_EVENTS,
        tables.MONITOR_STATE,
    ]  # a VACUUM takes seconds, however small the table
    monkeypatch.setattr(tables, "all_tables", lambda contract: some)
    tables.create_missing(spark, offline_settings, some)
    name = offline_settings.table("silver_events")
    today = datetime.now(UTC)
    for offset in range(2):
        rows = [(f"{day}-{offset}", at, at.date(), "a", 0, offset) for day, at in (("old", T0), ("new", today))]
        frame = spark.createDataFrame(
            rows, "event_id string, timestamp timestamp, event_date date, topic_id string, partition int, offset long"
        )
        frame.write.format("delta").mode("append").saveAsTable(name)
    versions = spark.sql(f"DESCRIBE HISTORY {name}").count()
    before = sorted(row["event_id"] for row in spark.table(name).collect())
    for offset in range(2):
        duplicate = {"topic_id": "a", "topic": "events", "partition": 0, "offset": offset, "event_id": "old-0"}
        tables.append_rows(spark, offline_settings, tables.DUPLICATE_EVENTS, [duplicate])
    tables.append_rows(spark, offline_settings, tables.MONITOR_STATE, [{"look": look, "detector": "clock"} for look in range(1, 31)])
    done = {row["table_name"]: row for row in maintain_tables(spark, offline_settings)}
    assert sorted(row["look"] for row in spark.table(offline_settings.table("monitor_state")).collect()) == list(range(7, 31))
    assert (done["silver_events"]["dates"], done["silver_events"]["files_before"], done["silver_events"]["files_after"]) == (1, 4, 3)
    assert (done["duplicate_events"]["files_before"], done["duplicate_events"]["files_after"]) == (2, 1)
    assert sorted(row["event_id"] for row in spark.table(name).collect()) == before == ["new-0", "new-1", "old-0", "old-1"]
    assert len([path for path in spark.table(name).inputFiles() if f"event_date={T0.date()}" in path]) == 1
    # VACUUM leaves what time travel needs.
    assert spark.sql(f"SELECT * FROM {name} VERSION AS OF {versions - 1}").count() == 4


def test_a_date_that_keeps_several_files_is_optimized_again_only_for_new_rows(spark, offline_settings, monkeypatch):
    silver = tables.silver_events(shipped_contract())
    monkeypatch.setattr(tables, "all_tables", lambda contract: [silver])
    tables.create_missing(spark, offline_settings, [silver])
    name = offline_settings.table("silver_events")
    days = [T0 - timedelta(days=1), T0]

    def write(at: datetime, first: int, processed_at: datetime) -> None:
        rows = [(f"e{offset}", at, at.date(), "a", 0, offset, processed_at) for offset in range(first, first + 100)]
        columns = "event_id string, timestamp timestamp, event_date date, topic_id string, partition int, offset long"
        frame = spark.createDataFrame(rows, f"{columns}, processed_at timestamp").coalesce(1)
        frame.write.format("delta").mode("append").saveAsTable(name)

    def optimized() -> tuple[int, int]:
        (done,) = maintain_tables(spark, offline_settings)
        return done["dates"], done["files_after"]

    for number, day in enumerate([*days, *days]):
        write(day, 100 * number, day)
    monkeypatch.setattr(spark, "sql", _without_vacuum(spark.sql))  # it is not what is tested here
    spark.conf.set("spark.databricks.delta.optimize.maxFileSize", "2000")  # less than the rows of a date need
    try:
        dates, files = optimized()
        assert dates == 2 and files >= 4
        assert optimized() == (0, files)
        write(T0, 400, datetime.now(UTC))
        assert optimized()[0] == 1
        assert optimized()[0] == 0
    finally:
        spark.conf.unset("spark.databricks.delta.optimize.maxFileSize")
    assert spark.table(name).select("event_id").distinct().count() == spark.table(name).count() == 500


def _without_vacuum(sql):
    return lambda text, *rest, **more: None if text.startswith("VACUUM") else sql(text, *rest, **more)
