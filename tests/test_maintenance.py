"""Nightly maintenance: fewer files on closed dates, the same rows, and the time travel that the tables promise."""

from datetime import UTC, date, datetime

from bronze_rows import T0, append_to_bronze, event

from streaming_pipeline.maintenance import closed_dates, maintain_tables
from streaming_pipeline.silver import cleanse_bronze_to_silver


def test_only_closed_dates_with_more_than_one_file_are_taken():
    files = [f"/t/event_date={day}/part-{n}.parquet" for day in ("2026-03-01", "2026-03-02", "2026-03-03") for n in range(2)]
    files += ["/t/event_date=2026-02-01/part-0.parquet", "/t/_delta_log/0.json"]
    assert closed_dates(files, date(2026, 3, 3)) == [date(2026, 3, 1), date(2026, 3, 2)]


def test_closed_dates_are_compacted_and_rows_stay(spark, offline_settings):
    now = datetime.now(UTC)
    for offset in range(2):
        append_to_bronze(
            spark, offline_settings, [event(f"old-{offset}"), event(f"new-{offset}", now)], first_offset=offset * 2, kafka_timestamp=now
        )
        cleanse_bronze_to_silver(spark, offline_settings)
    silver = offline_settings.table("silver_events")
    before = sorted(row["event_id"] for row in spark.table(silver).collect())
    done = {row["table_name"]: row for row in maintain_tables(spark, offline_settings).tables}
    assert (done["silver_events"]["dates"], done["silver_events"]["files_before"], done["silver_events"]["files_after"]) == (1, 4, 3)
    assert sorted(row["event_id"] for row in spark.table(silver).collect()) == before == ["new-0", "new-1", "old-0", "old-1"]
    paths = [path for path in spark.table(silver).inputFiles() if f"event_date={T0.date()}" in path]
    assert len(paths) == 1
    # OPTIMIZE is no new data: the streams behind it see nothing.
    assert cleanse_bronze_to_silver(spark, offline_settings).records == 0
