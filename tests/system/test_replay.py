"""Selection records go through the rules again; records that bronze lacks are read again: each ends in one place, whatever is repeated."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from bronze_rows import T0, append_to_bronze, event, with_contract

from streaming_pipeline.bronze.backfill import backfill_bronze, portions
from streaming_pipeline.bronze.ingest import stream_kafka_to_bronze
from streaming_pipeline.core import tables
from streaming_pipeline.core.errors import UsageError
from streaming_pipeline.events.producer import produce
from streaming_pipeline.events.synthetic import Record
from streaming_pipeline.kafka.connection import topic_offsets
from streaming_pipeline.monitoring.monitor import monitor_silver_events
from streaming_pipeline.silver.cleanse import cleanse_bronze_to_silver
from streaming_pipeline.silver.replay import Selection, replay_quarantine

ALL = Selection()


@pytest.fixture
def allow_refunds(offline_settings, tmp_path):
    """The settings after a fix of the contract: refunds are events too."""
    return with_contract(offline_settings, tmp_path, "[click, purchase, view]", "[click, purchase, view, refund]")


def offsets(spark, settings, name, where="TRUE"):
    return sorted(row["offset"] for row in spark.table(settings.table(name)).where(where).select("offset").collect())


def everything(spark, settings):
    """All rows of the three tables."""
    return {name: sorted(map(str, spark.table(settings.table(name)).collect())) for name in tables.PLACES}


def test_records_rejected_by_a_contract_since_put_right_become_events_and_keep_their_history(spark, offline_settings, allow_refunds):
    refund = {"event_type": "refund"}
    payloads = [
        event("a"),
        event("b", **refund),
        event("b", **refund),  # the same refund again
        event("a", **refund),  # repeats an event that silver has
        event("c", value="abc", **refund),  # has another fault too
        b"{",
    ]
    append_to_bronze(spark, offline_settings, payloads)
    cleanse_bronze_to_silver(spark, offline_settings)
    first = monitor_silver_events(spark, offline_settings)
    before = everything(spark, offline_settings)

    still = "still rejected 5 (not_allowed:event_type 4, malformed_json 1, wrong_type:value 1)"
    assert replay_quarantine(spark, offline_settings, ALL).note == f"events 0, duplicates 0, {still}"
    assert everything(spark, offline_settings) == before
    dry = replay_quarantine(spark, allow_refunds, ALL, dry_run=True)
    assert (dry.records, dry.duplicates, dry.rejected) == (1, 2, 2)
    assert everything(spark, offline_settings) == before

    done = replay_quarantine(spark, allow_refunds, ALL)
    assert (done.records, done.duplicates, done.rejected) == (1, 2, 2)
    assert done.reasons == dry.reasons == {"malformed_json": 1, "wrong_type:value": 1}
    assert offsets(spark, allow_refunds, "silver_events") == [0, 1]
    assert offsets(spark, allow_refunds, "duplicate_events") == [2, 3]
    assert offsets(spark, allow_refunds, "quarantined_events", "resolved_at IS NULL") == [4, 5]
    history = spark.table(allow_refunds.table("quarantined_events")).where("resolved_at IS NOT NULL").collect()
    assert {row["offset"]: row["reasons"] for row in history} == {offset: ["not_allowed:event_type"] for offset in (1, 2, 3)}
    assert all(row["resolved_at"] >= row["quarantined_at"] for row in history)

    after = everything(spark, allow_refunds)
    still = "still rejected 2 (malformed_json 1, wrong_type:value 1)"
    assert replay_quarantine(spark, allow_refunds, ALL).note == f"events 0, duplicates 0, {still}"
    with pytest.raises(UsageError, match=r"rejected for 'not_alowed:event_type': did you mean not_allowed:event_type"):
        replay_quarantine(spark, allow_refunds, Selection("not_alowed:event_type"))
    assert everything(spark, allow_refunds) == after
    look = monitor_silver_events(spark, allow_refunds)
    assert (look.unaccounted_records, first.records, look.records) == (0, 1, 1)
    # The main job leaves it all as it is.
    cleanse_bronze_to_silver(spark, allow_refunds)
    assert everything(spark, allow_refunds) == after


def test_a_replayed_event_counts_as_one_of_its_day(spark, offline_settings, allow_refunds):
    later = T0 + timedelta(hours=1)
    append_to_bronze(spark, offline_settings, [event("a"), event("b", later, event_type="refund")], kafka_timestamp=later)
    cleanse_bronze_to_silver(spark, offline_settings)
    late = replace(allow_refunds, late_after_seconds=1)
    first = monitor_silver_events(spark, late)
    assert (first.records, first.late_events, first.latest_event_time) == (1, 1, T0)
    replay_quarantine(spark, allow_refunds, ALL)
    look = monitor_silver_events(spark, late)
    assert (look.records, look.late_events, look.latest_event_time) == (1, 0, later)
    assert monitor_silver_events(spark, late).lateness_p50_seconds is None
    # A reason that only resolved records have is no mistake.
    assert replay_quarantine(spark, allow_refunds, Selection("not_allowed:event_type")).note == "events 0, duplicates 0, still rejected 0"


@pytest.mark.parametrize("stopped_before", ["silver_events", "MERGE"])
def test_a_replay_that_stopped_between_two_writes_is_finished_by_the_next(
    spark, offline_settings, allow_refunds, monkeypatch, stopped_before
):
    append_to_bronze(spark, offline_settings, [event(name, event_type="refund") for name in "aabbc"])
    cleanse_bronze_to_silver(spark, offline_settings)
    append = tables.append

    def crash(*arguments):
        if stopped_before in ("MERGE", arguments[1]):
            raise KeyboardInterrupt
        return append(*arguments)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        if stopped_before == "MERGE":
            patched.setattr("streaming_pipeline.silver.replay._resolve", crash)
        else:
            patched.setattr(tables, "append", crash)
        replay_quarantine(spark, allow_refunds, ALL)
    replay_quarantine(spark, allow_refunds, ALL)
    assert offsets(spark, allow_refunds, "silver_events") == [0, 2, 4]
    assert offsets(spark, allow_refunds, "duplicate_events") == [1, 3]
    assert offsets(spark, allow_refunds, "quarantined_events", "resolved_at IS NULL") == []
    assert monitor_silver_events(spark, allow_refunds).unaccounted_records == 0


def test_a_choice_is_by_reason_and_by_time(spark, offline_settings, allow_refunds):
    append_to_bronze(spark, offline_settings, [event("a", event_type="refund"), event("b", event_type="refund", value="x"), b"{"])
    cleanse_bronze_to_silver(spark, offline_settings)
    quarantine = spark.table(offline_settings.table("quarantined_events"))
    at = quarantine.first()["quarantined_at"].replace(tzinfo=UTC)

    def chosen(reason="", begin="", end=""):
        return sorted(row["offset"] for row in quarantine.where(Selection.from_texts(reason, begin, end).sql()).collect())

    later = (at + timedelta(seconds=1)).isoformat()
    assert chosen() == chosen(begin=at.isoformat()) == chosen(end=later) == [0, 1, 2]
    assert chosen(begin=later) == chosen(end=at.isoformat()) == chosen("wrong_typ") == []
    assert chosen("wrong_type") == chosen("wrong_type:value") == [1]
    assert chosen("not_allowed", begin=at.replace(tzinfo=None).isoformat()) == [0, 1]
    assert replay_quarantine(spark, allow_refunds, Selection("malformed_json")).rejected == 1
    for texts, named in (
        (("x' OR 'a' = 'a", "", ""), "'reason'"),
        (("", "yesterday", ""), "'from_time' is 'yesterday'"),
        (("", later, at.isoformat()), "'until_time'"),
    ):
        with pytest.raises(UsageError, match=named):
            Selection.from_texts(*texts)


def test_a_backfill_adds_what_bronze_lacks_from_a_time_on_and_nothing_else(spark, settings):
    begin = datetime.now(UTC) - timedelta(hours=1)
    records = [  # keys lay them on all partitions; without any, the client may take one for all
        Record(b"%d" % n, event(str(n), at=begin + timedelta(seconds=n)), int((begin + timedelta(seconds=n)).timestamp() * 1000))
        for n in range(300)
    ]
    produce(settings.kafka, records[:200])
    stream_kafka_to_bronze(spark, settings)
    cleanse_bronze_to_silver(spark, settings)
    bronze = settings.table("bronze_events")
    whole = {tuple(row) for row in spark.table(bronze).select("partition", "offset", "raw_payload").collect()}
    since = begin + timedelta(seconds=100)
    gone = "pmod(CAST(event_id AS INT), 3) = 0"
    lost = spark.table(bronze).where(gone).count()
    old = spark.table(bronze).where(f"{gone} AND kafka_timestamp < TIMESTAMP'{since.isoformat()}'").count()
    assert lost > old > 0
    spark.sql(f"DELETE FROM {bronze} WHERE {gone}")
    assert monitor_silver_events(spark, settings).unaccounted_records > 0  # silver has what bronze has not
    produce(settings.kafka, records[200:])

    versions = spark.sql(f"DESCRIBE HISTORY {bronze}").count()
    plan = backfill_bronze(spark, settings, since, dry_run=True)
    begins = topic_offsets(settings.kafka, since=since).beginnings
    last = {partition: max(offset for other, offset, _ in whole if other == partition) for partition in begins}
    to_read = sum(last[partition] + 1 - first for partition, first in begins.items())
    assert plan.records == 0 and f"would read up to {to_read:,} records" in plan.note
    assert all(f"partition {partition} from offset {first} to {last[partition]}" in plan.note for partition, first in begins.items())
    assert spark.sql(f"DESCRIBE HISTORY {bronze}").count() == versions

    small = replace(settings, max_offsets_per_trigger=50)
    assert backfill_bronze(spark, small, since).records == lost - old
    assert backfill_bronze(spark, small, since).records == 0
    assert backfill_bronze(spark, settings, begin).records == old
    assert {tuple(row) for row in spark.table(bronze).select("partition", "offset", "raw_payload").collect()} == whole
    # What the stream has not read yet is the stream's.
    assert stream_kafka_to_bronze(spark, settings).records == 100
    assert cleanse_bronze_to_silver(spark, settings).records == 100
    look = monitor_silver_events(spark, settings)
    assert (look.unaccounted_records, look.lost_records, look.kafka_lag_records) == (0, 0, 0)
    for nothing in (datetime.now(UTC) + timedelta(days=1), datetime(1, 1, 1, tzinfo=UTC)):
        assert backfill_bronze(spark, settings, nothing).records == 0
    assert sum(topic_offsets(settings.kafka).ends.values()) == spark.table(bronze).count() == 300


def test_a_backfill_of_a_topic_that_was_never_read_leaves_it_to_the_main_job(spark, settings):
    produce(settings.kafka, [Record(None, event("a"), None)])
    plan = backfill_bronze(spark, settings, T0, dry_run=True)
    assert plan.records == 0 and "the main job reads all of it" in plan.note
    assert not spark.catalog.databaseExists(settings.schema)


def test_portions_cover_each_range_once_in_order():
    ranges = {0: (5, 12), 1: (0, 100), 2: (7, 7), 3: (9, 4)}
    cut = list(portions(ranges, 10))
    assert all(sum(end - first for first, end in portion.values()) <= 10 for portion in cut)
    for partition, (first, end) in ranges.items():
        covered = [offset for portion in cut if partition in portion for offset in range(*portion[partition])]
        assert covered == list(range(first, end))
    assert list(portions({0: (0, 2), 1: (0, 1)}, 1)) == [{0: (0, 1), 1: (0, 1)}, {0: (1, 2)}]
