"""What arrives is what was committed: by the producers' transactions, and by a run that was interrupted."""

import shutil
from pathlib import Path

from bronze_rows import append_to_bronze, event
from confluent_kafka import Producer

from streaming_pipeline.bronze.ingest import stream_kafka_to_bronze
from streaming_pipeline.core.streams import read_until
from streaming_pipeline.events.producer import LineRecords, produce
from streaming_pipeline.kafka.connection import client_config, topic_offsets
from streaming_pipeline.monitoring.monitor import monitor_silver_events
from streaming_pipeline.silver.cleanse import cleanse_bronze_to_silver


def test_bronze_takes_a_batch_again_whose_end_was_not_put_down(spark, settings):
    produce(settings.kafka, LineRecords(b"{}" for _ in range(40)))
    assert stream_kafka_to_bronze(spark, settings).records == 40
    # As after a kill between the table's commit and the checkpoint's.
    (commits,) = Path(settings.checkpoint("bronze")).glob("*/commits")
    checkpoint = str(commits.parent)
    assert read_until(checkpoint) == topic_offsets(settings.kafka).ends
    (commits / "0").unlink()
    (commits / ".0.crc").unlink()
    assert read_until(checkpoint) == {0: 0, 1: 0, 2: 0}
    assert read_until(f"{checkpoint}-of-another") is None
    produce(settings.kafka, LineRecords(b"{}" for _ in range(5)))
    assert stream_kafka_to_bronze(spark, settings).records == 5
    # Of a checkpoint without its batches the rest counts for nothing: Delta would take new ones for those.
    for kind in ("offsets", "commits"):
        shutil.rmtree(Path(checkpoint, kind))
    produce(settings.kafka, LineRecords(b"{}" for _ in range(5)))
    ingested = stream_kafka_to_bronze(spark, settings)
    assert ingested.records == 5 and "the checkpoint was gone" in ingested.note


def test_where_a_stream_cannot_go_on_with_its_table_it_reads_all_again_and_nothing_comes_twice(spark, offline_settings):
    bronze = offline_settings.table("bronze_events")
    append_to_bronze(spark, offline_settings, [event("a")])
    assert cleanse_bronze_to_silver(spark, offline_settings).records == 1
    for offset, name in enumerate("bc", start=1):
        append_to_bronze(spark, offline_settings, [event(name)], first_offset=offset)
    spark.sql(f"OPTIMIZE {bronze}")
    spark.conf.set("spark.databricks.delta.retentionDurationCheck.enabled", "false")
    spark.sql(f"VACUUM {bronze} RETAIN 0 HOURS")
    spark.conf.unset("spark.databricks.delta.retentionDurationCheck.enabled")
    counts = cleanse_bronze_to_silver(spark, offline_settings)
    assert counts.records == 2 and "files that it had not read yet were taken away" in counts.note and "\n" not in counts.note
    spark.sql(f"DROP TABLE {bronze}")
    append_to_bronze(spark, offline_settings, [event("d")], first_offset=3)
    counts = cleanse_bronze_to_silver(spark, offline_settings)
    assert counts.records == 1 and "was dropped and recreated: all was read again" in counts.note


def transaction(settings, name):
    """A producer in the middle of a transaction of ten events, five on each of two partitions."""
    producer = Producer(
        client_config(settings.kafka) | {"transactional.id": f"{settings.kafka_topic}-{name}", "transaction.timeout.ms": 600_000}
    )
    producer.init_transactions()
    producer.begin_transaction()
    for number in range(10):
        producer.produce(settings.kafka_topic, event(f"{name}{number}"), partition=number % 2)
    producer.flush()
    return producer


def without_transaction(settings, *names):
    producer = Producer(client_config(settings.kafka))
    for name in names:
        producer.produce(settings.kafka_topic, event(name), partition=0)
    producer.flush()


def test_of_transactions_only_what_was_committed_arrives_and_their_markers_are_no_loss(spark, settings):
    transaction(settings, "a").commit_transaction()
    transaction(settings, "b").abort_transaction()
    transaction(settings, "c").commit_transaction()
    without_transaction(settings, "plain", "a0")
    still_open = transaction(settings, "d")
    without_transaction(settings, "behind it")

    def run():
        arrived = stream_kafka_to_bronze(spark, settings).records
        cleanse_bronze_to_silver(spark, settings)
        look = monitor_silver_events(spark, settings)
        assert (look.unaccounted_records, look.lost_records) == (0, 0)
        assert look.verified_until == look.read_until
        # What lies behind bronze's last record are markers and aborted records.
        assert look.kafka_lag_records == 0
        return arrived, look.records, look.duplicate_events

    assert run() == (22, 21, 1)
    still_open.abort_transaction()
    transaction(settings, "e").abort_transaction()
    assert run() == (1, 1, 0)
    silver = {row["event_id"] for row in spark.table(settings.table("silver_events")).select("event_id").collect()}
    assert silver == {f"{name}{number}" for name in "ac" for number in range(10)} | {"plain", "behind it"}
