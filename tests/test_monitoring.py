"""What a look at the tables finds when they are in order, and when they are not."""

import json
import random
import re
from dataclasses import replace
from datetime import UTC, timedelta
from functools import reduce
from operator import getitem

import numpy as np
import pytest
from bronze_rows import T0, append_to_bronze, event, shipped_contract, with_field
from kafka_records import expire, send

from streaming_pipeline.bronze.ingest import stream_kafka_to_bronze
from streaming_pipeline.core import tables
from streaming_pipeline.core.contract import load_contract
from streaming_pipeline.core.coordinates import behind
from streaming_pipeline.detectors.gap import Gap
from streaming_pipeline.detectors.summary import Summary
from streaming_pipeline.monitoring import baseline, conservation
from streaming_pipeline.monitoring import state as states
from streaming_pipeline.monitoring.arrivals import Anomaly, Watch
from streaming_pipeline.monitoring.baseline import Baseline
from streaming_pipeline.monitoring.detection import begin_look
from streaming_pipeline.monitoring.freshness import freshness, health, problems
from streaming_pipeline.monitoring.intake import Intake
from streaming_pipeline.monitoring.monitor import monitor_silver_events
from streaming_pipeline.monitoring.profile import ColumnProfile, Shape
from streaming_pipeline.monitoring.schema import Known
from streaming_pipeline.monitoring.scores import Scores
from streaming_pipeline.monitoring.values import ColumnMemory
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


@pytest.mark.parametrize("detector", ["clock", "arrivals", "drift", "schema", "scores", "values"])
@pytest.mark.parametrize("text", [None, "", "{", "5", "[]", "null", '"x"', "[" * 100_000])
def test_no_row_of_monitor_state_stops_a_look(detector, text):
    held = Baseline(1, "silver_events", "x", (1, 2), Shape(60, (), {"value": (0.0, 1.0)}, {"value": 1.0}))
    rows = states.rows(states.State(watches={"*": Watch()}, next_window=5, last_minute=7, baseline_id=1), 1, T0)
    rows += [{"detector": "values", "slice": "value/*", "state": json.dumps(ColumnMemory(held.shape.scaled_edges("value")).to_json())}]
    good = states.load(rows, held)
    assert (good.last_minute, good.next_window, list(good.memories), good.damaged) == (7, 5, [("value", "*")], ())
    found = states.load([row | {"state": text} if row["detector"] == detector else row for row in rows], held)
    assert [name.split()[0] for name in found.damaged] == [detector]
    # What hangs on the baseline begins anew together.
    hangs = detector in ("clock", "drift", "values")
    assert (found.next_window, found.baseline_id) == ((None, None) if hangs else (5, 1))


def places(held, above=()):
    """Where the numbers of a value of JSON are."""
    if isinstance(held, int | float):
        yield above
    parts = held.items() if isinstance(held, dict) else enumerate(held) if isinstance(held, list) else ()
    for name, part in parts:
        yield from places(part, (*above, name))


def test_a_number_of_monitor_state_that_is_none_is_found_before_a_look_counts_with_it():
    shape = Shape(60, (), {"value": (0.0, 1.0)}, {"value": 1.0})
    some = Summary.of(np.array([0.5, 2.0]), shape.scaled_edges("value"))
    one, memory = ColumnProfile(5, "*", "value", 2, 0, raw=some, scaled=some, categories={"a": 1}), ColumnMemory(some.edges)
    memory.learn(some, [], 3, 60)
    spike = Anomaly("zscore", "spike", "arrivals", "*", 1, 2, 9.0, 1.0, 8.0, 6.0)
    watch = Watch(next_minute=2, quiet=Gap(1, 2, 1.0, 0.0, 1.0), spiking=[spike], waiting={3: 1})
    state = states.State({"*": watch}, {("value", "*"): memory}, {one.key: one}, 5, 7, Known({"x": 1}, {"r": 1}, 2), baseline_id=1)
    state.scores = Scores(T0, 3, {("m/1", 3): some})
    held = Baseline(1, "silver_events", "x", (1, 2), shape)
    rows = states.rows(state, 1, T0)
    assert states.load(rows, held).damaged == ()
    tried = 0
    for row in rows:
        for *way, last in places(json.loads(row["state"])):
            kept = json.loads(row["state"])
            reduce(getitem, way, kept)[last] = "x"
            found = states.load([other if other is not row else row | {"state": json.dumps(kept)} for other in rows], held)
            assert found.damaged == (f"{row['detector']} {row['slice']}".strip(),), (way, last)
            tried += 1
    assert tried > 100


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


def test_health_says_all_that_is_wrong():
    fine = {"unaccounted": 0, "lost": 0, "freshness_seconds": 10.0, "freshness_limit_seconds": 60}
    assert problems(**fine) == {}
    bad = problems(**{**fine, "unaccounted": 2, "lost": 1, "freshness_seconds": 61.0})
    assert list(bad) == ["records_unaccounted", "records_lost", "stale"]
    assert list(problems(**fine, silent_seconds=9.0, silence_allowed_seconds=8.0)) == ["stale"]
    assert problems(**{**fine, "freshness_seconds": None}) == {}
    old = problems(**{**fine, "unaccounted": 1, "freshness_seconds": 23_480_194.0, "freshness_limit_seconds": 7_200})
    assert list(old.values()) == ["1 record is not accounted for", "the newest event is 272 days old, the limit is 2 hours"]
    assert health({}, has_events=True) == ("Healthy", None)
    assert health({"stale": "it is old", "records_rejected": "half is bad"}, has_events=True) == ("Unhealthy", "it is old; half is bad")
    assert health({}, has_events=False) == ("Unknown", "no event has arrived yet")
    assert health({}, has_events=False, rejection="all are bad") == ("Unknown", "all are bad")


@pytest.mark.parametrize(
    ("intake", "found"),
    [
        (
            Intake(200, 200, 0, {"missing:value": 200}),
            {"records_rejected": "200 of 400 records rejected (missing:value 200), the limit is 5 %"},
        ),
        (Intake(95, 5, 0, {"missing:value": 5}), {}),
        (Intake(18, 1, 1), {}),
        (Intake(18, 2, 0), {"records_rejected": "2 of 20 records rejected, the limit is 5 %"}),
        (Intake(0, 19, 0), {}),
        (Intake(80, 0, 20), {}),
        (Intake(79, 0, 21), {"records_repeated": "21 of 100 records repeat an event, the limit is 20 %"}),
        (
            Intake(0, 400, 0, {"missing:event_id": 400}),
            {"records_rejected": "400 of 400 records rejected (missing:event_id 400): is this the right contract?"},
        ),
        (
            Intake(0, 30, 0, {"a": 1, "b": 2, "c": 3, "d": 30}),
            {"records_rejected": "30 of 30 records rejected (d 30, c 3, b 2, …): is this the right contract?"},
        ),
    ],
)
def test_a_share_of_rejected_or_repeated_records_above_its_limit_is_a_problem_without_any_history(intake, found):
    assert intake.problems(5, 20) == found


def test_the_limits_of_shares_are_parameters():
    assert set(Intake(50, 25, 25).problems(24, 24)) == {"records_rejected", "records_repeated"}
    assert Intake(50, 25, 25).problems(25, 25) == {}
    assert set(Intake(99, 1, 0).problems(0, 0)) == {"records_rejected"}


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
