"""What a look at the tables finds when they are in order, and when they are not."""

import random
import re
from dataclasses import replace
from datetime import UTC, timedelta

import pytest
from bronze_rows import T0, append_to_bronze, event, shipped_contract, with_field
from kafka_records import expire, send

from streaming_pipeline.bronze.ingest import stream_kafka_to_bronze
from streaming_pipeline.core import tables
from streaming_pipeline.core.contract import load_contract
from streaming_pipeline.core.coordinates import behind
from streaming_pipeline.monitoring import baseline, conservation
from streaming_pipeline.monitoring import state as states
from streaming_pipeline.monitoring.baseline import Baseline
from streaming_pipeline.monitoring.detection import begin_look
from streaming_pipeline.monitoring.freshness import freshness
from streaming_pipeline.monitoring.monitor import monitor_silver_events
from streaming_pipeline.monitoring.profile import Shape
from streaming_pipeline.silver.cleanse import cleanse_bronze_to_silver

SCHEMA = "topic_id string, topic string, partition int, offset long"


def append(spark, settings, name, offsets, **columns):
    """Rows of a table by their offsets in partition 0; `columns` are SQL expressions over `offset`."""
    frame = spark.createDataFrame([("a", "events", 0, offset) for offset in offsets], SCHEMA)
    for column, expression in columns.items():
        frame = frame.selectExpr("*", f"{expression} AS `{column}`")
    frame.coalesce(1).write.format("delta").mode("append").saveAsTable(settings.table(name))


def fill(spark, settings, silver, duplicates, open_quarantine, resolved=()):
    """Sixty records of bronze, and where they went; silver's events are a second old when Kafka gets them."""
    tables.create_missing(spark, settings, tables.record_tables(shipped_contract()))
    at = f"timestamp_seconds({int(T0.timestamp())} + offset)"
    dated = {"timestamp": at, "event_date": f"to_date({at})", "kafka_timestamp": f"{at} + INTERVAL 1 SECOND"}
    append(spark, settings, "bronze_events", range(60))
    append(spark, settings, "silver_events", silver, **dated)
    append(spark, settings, "duplicate_events", duplicates)
    is_resolved = f"offset IN ({', '.join(map(str, resolved)) or 'NULL'})"
    resolved_at = f"CASE WHEN {is_resolved} THEN timestamp'2026-03-02' END"
    append(spark, settings, "quarantined_events", [*open_quarantine, *resolved], resolved_at=resolved_at)


def test_the_law_counts_each_record_that_is_in_no_table_in_two_or_in_none_of_bronze(spark, offline_settings):
    # 3 and 4 are in no table, 45 is there twice, 99 comes from nowhere; 50 was rejected first and is an event since.
    silver = [offset for offset in range(40) if offset not in (3, 4)]
    fill(spark, offline_settings, [*silver, 50, 99], [*range(40, 50), 45], range(51, 60), resolved=[50])
    totals = conservation.count_rows(spark, offline_settings)
    # The numbers of rows alone would not tell.
    assert totals["bronze_events"] == totals["silver_events"] + totals["duplicate_events"] + totals["open_quarantine"] == 60
    found = conservation.check(spark, offline_settings, {}, totals)
    assert (found.unaccounted, found.spans) == (4, (conservation.Span("a", 0, first=0, last=59, rows=60, offset_sum=sum(range(60))),))
    # What an earlier look found in order is not looked at again.
    assert conservation.check(spark, offline_settings, {"a/0": 60}, totals).unaccounted == 1


def test_a_row_of_monitor_logs_tells_what_is_new_and_the_next_goes_on_from_there(spark, offline_settings):
    filled = offline_settings
    fill(spark, filled, range(40), range(40, 50), range(50, 60))
    first = monitor_silver_events(spark, filled)
    assert (first.records, first.late_events, first.duplicate_events, first.quarantined_events) == (40, 0, 10, 10)
    assert (first.unaccounted_records, first.read_until) == (0, {"a/0": 60})
    assert first.latest_event_time == T0 + timedelta(seconds=39)
    assert first.lateness_p50_seconds == first.lateness_p99_seconds == 1
    assert (first.status, first.kafka_lag_records) == ("Unhealthy", None)  # an old stream, and no Kafka to ask
    assert "the limit is 2 hours" in first.status_reason

    quiet = monitor_silver_events(spark, filled)
    assert (quiet.records, quiet.duplicate_events, quiet.lateness_p50_seconds) == (0, 0, None)
    assert (quiet.read_until, quiet.verified_until) == (first.read_until, first.verified_until)
    assert quiet.latest_event_time == first.latest_event_time
    # A look that has nothing to look at and finds nothing remembers nothing: the next one goes on with what the look before it did.
    spark.sql(f"DELETE FROM {filled.table('monitor_state')} WHERE look = {quiet.look}")
    assert {row["look"] for row in states.finished(spark, filled, quiet.look + 1, [])} == {first.look}

    append(spark, filled, "bronze_events", [60, 61])
    append(spark, filled, "duplicate_events", [60])
    missing = monitor_silver_events(spark, filled)
    assert (missing.unaccounted_records, missing.status, missing.duplicate_events) == (1, "Unhealthy", 1)
    assert monitor_silver_events(spark, filled).unaccounted_records == 1  # it stays said until it is mended
    append(spark, filled, "quarantined_events", [61], resolved_at="CAST(NULL AS TIMESTAMP)")
    mended = monitor_silver_events(spark, filled)
    assert (mended.unaccounted_records, mended.verified_until) == (0, {"a/0": 62})


def test_what_monitoring_remembers_and_cannot_be_read_is_named_once_and_begins_anew(spark, offline_settings):
    fill(spark, offline_settings, range(40), range(40, 50), range(50, 60))
    monitor_silver_events(spark, offline_settings)
    spark.sql(f"UPDATE {offline_settings.table('monitor_state')} SET state = CASE detector WHEN 'clock' THEN '5' WHEN 'scores' THEN NULL "
              "WHEN 'arrivals' THEN repeat('[', 100000) ELSE state END")  # fmt: skip
    append(spark, offline_settings, "bronze_events", [60])
    at = f"timestamp_seconds({int(T0.timestamp())} + offset)"
    append(spark, offline_settings, "silver_events", [60], timestamp=at, event_date=f"to_date({at})", kafka_timestamp=at)
    look = monitor_silver_events(spark, offline_settings)
    assert (look.records, look.unaccounted_records) == (1, 0)
    assert re.search(r"; monitor_state cannot be read for .*arrivals \*, .*clock, scores: monitoring learns this again", look.note)
    assert "monitor_state" not in monitor_silver_events(spark, offline_settings).note


def test_a_baseline_that_cannot_be_read_is_named_and_the_one_before_takes_its_place(spark, offline_settings):
    shape = Shape(60, (), {"value": (0.0, 1.0)}, {"value": 1.0})
    held = [Baseline(number, "silver_events", "x", (1, 2), shape).to_row(None, "r", T0) for number in (1, 2, 3)]
    for row, text in zip(held, ("[]", "{", "5"), strict=True):
        row["reference"] = text
    tables.append_rows(spark, offline_settings, tables.BASELINES, held)
    newest, number, damaged = baseline.newest(spark, offline_settings, "silver_events")
    assert (newest.baseline_id, number, damaged) == (1, 3, [3, 2])
    assert begin_look(spark, offline_settings, 1).damaged == "baseline 3, 2 cannot be read: baseline 1 takes its place"


def test_a_field_that_the_contract_lacks_is_counted_until_the_contract_has_it(spark, offline_settings, tmp_path):
    payloads = [event("a", colour="red"), event("b", colour="blue", value="abc"), event("c", size=1, colour=""), event("d"), b"{"]
    append_to_bronze(spark, offline_settings, payloads)
    cleanse_bronze_to_silver(spark, offline_settings)
    look = monitor_silver_events(spark, offline_settings)
    assert look.unknown_fields == {"colour": 3, "size": 1}
    assert "fields that the contract lacks: colour (3 records), size (1 record)" in look.note
    assert monitor_silver_events(spark, offline_settings).unknown_fields == {}

    changed = with_field(offline_settings, tmp_path, "colour")
    append_to_bronze(spark, changed, [event("e", colour="red", size=2)], first_offset=5, contract=load_contract(changed.contract_path))
    cleanse_bronze_to_silver(spark, changed)
    assert monitor_silver_events(spark, changed).unknown_fields == {"size": 1}
    silver = {row["event_id"]: row["colour"] for row in spark.table(changed.table("silver_events")).collect()}
    assert silver == {"a": None, "c": None, "d": None, "e": "red"}


def test_a_clock_that_was_set_back_counts_nothing_twice(spark, offline_settings):
    fill(spark, offline_settings, range(40), range(40, 50), range(50, 60))
    first = monitor_silver_events(spark, offline_settings)
    ahead = "run_time + INTERVAL 1 DAY"  # as if the look had been made before the clock was set back by a day
    spark.sql(f"UPDATE {offline_settings.table('monitor_logs')} SET run_time = {ahead}")
    append(spark, offline_settings, "bronze_events", [60])
    append(spark, offline_settings, "duplicate_events", [60])
    looks = [monitor_silver_events(spark, offline_settings) for _ in range(2)]
    assert [(look.records, look.duplicate_events) for look in looks] == [(0, 1), (0, 0)]
    assert looks[1].run_time > looks[0].run_time > first.run_time + timedelta(days=1)


def test_a_partition_with_a_gap_is_looked_at_again_until_kafka_says_that_nothing_is_lost(spark, settings, broker):
    send(settings, 40)
    stream_kafka_to_bronze(spark, settings)
    bronze, topic = settings.table("bronze_events"), settings.kafka_topic
    spark.sql(f"DELETE FROM {bronze} WHERE offset IN (1, 3)")
    cleanse_bronze_to_silver(spark, settings)
    looks = [monitor_silver_events(spark, replace(settings, kafka_topic=name)) for name in (topic, topic, "no-such-topic", topic)]
    assert [look.lost_records for look in looks] == [6, 6, None, 6]
    assert [look.status for look in looks] == ["Unhealthy", "Unhealthy", "Unknown", "Unhealthy"]  # no event is valid
    assert all(look.unaccounted_records == 0 for look in looks)
    # The records expire in Kafka: what it does not hold any more cannot be fetched either.
    for first, lost in ((2, 3), (4, 0)):
        expire(broker, settings, dict.fromkeys(range(3), first))
        last = monitor_silver_events(spark, settings)
        assert (last.lost_records, last.verified_until == last.read_until) == (lost, not lost)


def test_behind_is_what_no_earlier_look_has_read(spark):
    until = {"a/0": 5, "a/1": 2, "gone/0": 100, "gone/3": 100}
    places = [(topic, partition, offset) for topic in ("a", "gone", "new") for partition in range(4) for offset in (0, 2, 4, 5, 99, 100)]
    frame = spark.createDataFrame(places, "topic_id string, partition int, offset long")
    expected = {place for place in places if place[2] >= until.get(f"{place[0]}/{place[1]}", 0)}
    assert {tuple(row) for row in frame.where(behind(until)).collect()} == expected
    assert frame.where(behind({})).count() == len(places)


def test_lateness_is_counted_and_its_quantiles_are_those_of_the_sorted_values(spark):
    rng = random.Random(2)
    lateness = [round(rng.expovariate(1 / 60) - 20, 3) for _ in range(999)]
    rows = [(T0, T0 + timedelta(seconds=late)) for late in lateness]
    seen = freshness(spark.createDataFrame(rows, "timestamp timestamp, kafka_timestamp timestamp"), shipped_contract(), 300)
    assert (seen.records, seen.late_events) == (999, sum(late > 300 for late in lateness))
    ordered = sorted(lateness)
    expected = [ordered[rank - 1] for rank in (500, 950, 990)]
    assert seen.lateness_seconds == pytest.approx(expected, rel=0.01, abs=0.001)
    assert min(expected) > 0 > ordered[0]  # some are dated ahead of their arrival

    ahead = [(T0 + timedelta(seconds=late), T0) for late in lateness]
    turned = freshness(spark.createDataFrame(ahead, "timestamp timestamp, kafka_timestamp timestamp"), shipped_contract(), 300)
    assert turned.lateness_seconds == pytest.approx([-ordered[rank] for rank in (499, 49, 9)], rel=0.01, abs=0.001)


def test_an_event_dated_ahead_does_not_hide_that_nothing_arrives(spark):
    rows = [(T0 + timedelta(hours=20), T0)]
    seen = freshness(spark.createDataFrame(rows, "timestamp timestamp, kafka_timestamp timestamp"), shipped_contract(), 300)
    assert seen.latest_event_time.astimezone(UTC) == T0


def test_where_all_records_are_rejected_the_status_asks_for_the_contract_however_few_they_are(spark, offline_settings):
    wrong = event("", event_id=None)
    append_to_bronze(spark, offline_settings, [wrong] * 10)
    cleanse_bronze_to_silver(spark, offline_settings)
    few, quiet = (monitor_silver_events(spark, offline_settings) for _ in range(2))
    assert (few.status, few.problems) == ("Unknown", {})
    assert few.status_reason == "10 of 10 records rejected (missing:event_id 10): is this the right contract?"
    assert (quiet.status, quiet.status_reason) == ("Unknown", "no valid event so far, 10 records were rejected")

    append_to_bronze(spark, offline_settings, [wrong] * 30, first_offset=10)
    cleanse_bronze_to_silver(spark, offline_settings)
    many = monitor_silver_events(spark, offline_settings)
    reason = "30 of 30 records rejected (missing:event_id 30): is this the right contract?"
    assert (many.status, many.status_reason, many.problems) == ("Unhealthy", reason, {"records_rejected": reason})


def test_a_log_of_an_older_version_gets_the_columns_that_it_lacks(spark, offline_settings):
    new = ("conflicting_events", "problems")
    older = [column for column in tables.MONITOR_LOGS.columns if column[0] not in new]
    row = {"run_time": T0, "look": 1, "table_name": "silver_events", "totals": {}, "read_until": {}, "verified_until": {}, "figures": {}}
    tables.append_rows(spark, offline_settings, replace(tables.MONITOR_LOGS, columns=tuple(older)), [row])
    append_to_bronze(spark, offline_settings, [event("a")])
    cleanse_bronze_to_silver(spark, offline_settings)
    look = monitor_silver_events(spark, offline_settings)
    assert (look.look, look.records, look.conflicting_events) == (2, 1, 0)
    held = spark.table(offline_settings.table("monitor_logs")).orderBy("look").select(*new).collect()
    assert [tuple(row) for row in held] == [(None, None), (0, look.problems)]
