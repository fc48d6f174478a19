"""Kafka to bronze: nothing lost in silence, nothing twice, by a real broker."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from bronze_rows import append_to_bronze, with_contract
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewPartitions, ResourceType
from kafka_records import expire, send

from streaming_pipeline.bronze import ingest as bronze
from streaming_pipeline.bronze.ingest import stream_kafka_to_bronze
from streaming_pipeline.bronze.losses import refuse_or_record
from streaming_pipeline.core.errors import PipelineError
from streaming_pipeline.core.settings import Settings
from streaming_pipeline.events.producer import produce
from streaming_pipeline.events.synthetic import Record
from streaming_pipeline.kafka.connection import TopicInfo, TopicOffsets, client_config, topic_offsets
from streaming_pipeline.monitoring.monitor import monitor_silver_events
from streaming_pipeline.silver.cleanse import cleanse_bronze_to_silver


def held(spark, settings):
    """The (topic_id, partition, offset) of bronze's rows."""
    return sorted(tuple(row) for row in spark.table(settings.table("bronze_events")).select("topic_id", "partition", "offset").collect())


def losses(spark, settings):
    """What monitor_logs tells of bronze."""
    rows = spark.table(settings.table("monitor_logs")).where("table_name = 'bronze_events'").orderBy("run_time").collect()
    return [(row["status"], row["lost_records"], row["status_reason"]) for row in rows]


def test_records_that_expired_unread_stop_the_run_until_the_loss_is_accepted_and_recorded(spark, settings, broker, tmp_path):
    read = send(settings, 60)
    assert stream_kafka_to_bronze(spark, settings).records == 60
    ends = send(settings, 90)
    gone = {0: read[0] + 3, 1: ends[1], 2: read[2]}  # three records of 0, all new ones of 1, only what is read of 2
    expire(broker, settings, gone)

    def refusal(settings):
        with pytest.raises(PipelineError) as refused:
            stream_kafka_to_bronze(spark, settings)
        return str(refused.value)

    said = refusal(settings)
    assert refusal(replace(settings, checkpoint_dir=f"{settings.checkpoint_dir}-lost")) == said
    assert f"{settings.kafka_topic}: the records of partition 0 from offset {read[0]} to {read[0] + 2} expired before" in said
    assert f"partition 1 from offset {read[1]} to {ends[1] - 1} expired" in said
    assert "partition 2" not in said and 'kafka_options={"failOnDataLoss": "false"}' in said and "\n" not in said
    assert len(held(spark, settings)) == 60

    accepting = replace(settings, kafka_options={"failOnDataLoss": "false"})
    lost = 3 + ends[1] - read[1]
    ingested = stream_kafka_to_bronze(spark, accepting)
    assert ingested.records == 90 - lost
    assert "Loss accepted" in ingested.note
    cleanse_bronze_to_silver(spark, settings)
    look = monitor_silver_events(spark, settings)
    assert (look.unaccounted_records, look.lost_records, look.kafka_lag_records) == (0, 0, 0)
    assert losses(spark, settings) == [("Unhealthy", lost, ingested.note)]
    # From here on all is as ever.
    send(settings, 10)
    again = stream_kafka_to_bronze(spark, settings)
    assert (again.records, again.note, len(losses(spark, settings))) == (10, "", 1)
    # But for those who judge it: what they ask otherwise is said once.
    changed = with_contract(settings, tmp_path, "[click, purchase, view]", "[click, view]")
    assert stream_kafka_to_bronze(spark, changed).note.endswith(": event_type: valid values changed")
    assert stream_kafka_to_bronze(spark, changed).note == ""


def test_a_topic_that_is_made_anew_is_another_one_and_is_noticed(spark, settings, broker):
    send(settings, 30)
    stream_kafka_to_bronze(spark, settings)
    before, topic = held(spark, settings), settings.kafka_topic
    old = topic_offsets(settings.kafka).info.topic_id
    broker.delete_topic(topic)
    broker.create_topic(topic)
    send(settings, 20)
    new = topic_offsets(settings.kafka).info.topic_id
    ingested = stream_kafka_to_bronze(spark, settings)
    assert ingested.records == 20
    after = held(spark, settings)
    assert set(before) < set(after) and {row[0] for row in after} == {old, new}
    ((status, lost, reason),) = losses(spark, settings)
    assert (status, lost, reason) == ("Unknown", None, ingested.note)
    assert f"{topic} was recreated (id {old}, now {new})" in reason
    assert stream_kafka_to_bronze(spark, settings).note == ""
    # The whole of both topics goes through the law.
    cleanse_bronze_to_silver(spark, settings)
    look = monitor_silver_events(spark, settings)
    assert (look.unaccounted_records, look.lost_records, look.quarantined_events) == (0, 0, 50)


def test_a_topic_that_is_made_anew_while_a_run_reads_it_is_told(spark, settings, broker, monkeypatch):
    send(settings, 300)
    old, write, topic = topic_offsets(settings.kafka).info.topic_id, bronze.write_batch, settings.kafka_topic

    def replaced_behind_the_first_batch(records, batch_id, settings):
        write(records, batch_id, settings)
        if batch_id == 0:
            broker.delete_topic(topic)
            broker.create_topic(topic)
            send(ours, 600)

    ours = settings
    monkeypatch.setattr(bronze, "write_batch", replaced_behind_the_first_batch)
    # By so little that is fetched ahead, the stream goes on with the other topic of the name.
    few = {"kafka.max.partition.fetch.bytes": "100", "kafka.fetch.max.bytes": "100", "kafka.max.poll.records": "1"}
    ingested = stream_kafka_to_bronze(spark, replace(settings, max_offsets_per_trigger=30, kafka_options=few))
    monkeypatch.undo()
    new = topic_offsets(settings.kafka).info.topic_id
    ((status, lost, reason),) = losses(spark, settings)
    assert (status, lost, reason) == ("Unhealthy", None, ingested.note)
    assert f"{topic} was recreated while a run was reading it (id {old}, now {new})" in reason
    # All of the new one comes by the next run.
    assert stream_kafka_to_bronze(spark, settings).records == 600


def test_what_expires_while_a_run_reads_that_accepts_it_is_recorded(spark, settings, broker, monkeypatch):
    ends = send(settings, 60)
    run = bronze.run_available_now

    def expire_and_run(*arguments, **keywords):
        expire(broker, settings, {0: 5, 1: ends[1]})
        run(*arguments, **keywords)

    monkeypatch.setattr(bronze, "run_available_now", expire_and_run)
    accepting = replace(settings, kafka_options={"FAILONDATALOSS": "false"})
    ingested = stream_kafka_to_bronze(spark, accepting)
    assert ingested.records == 60 - 5 - ends[1]
    assert losses(spark, settings) == [("Unhealthy", 5 + ends[1], ingested.note)]
    assert f"5 offsets of partition 0 from 0 to 4; {ends[1]} offsets of partition 1 from 0 to {ends[1] - 1}" in ingested.note
    assert (stream_kafka_to_bronze(spark, accepting).note, len(losses(spark, settings))) == ("", 1)


def test_the_first_records_of_a_partition_that_was_added_are_missed_too(spark, settings, broker):
    send(settings, 30)
    stream_kafka_to_bronze(spark, settings)
    admin = broker._admin()
    for future in admin.create_partitions([NewPartitions(settings.kafka_topic, 4)]).values():
        future.result(30)
    producer = Producer(client_config(settings.kafka))
    for _ in range(8):
        producer.produce(settings.kafka_topic, b"{}", partition=3)
    assert producer.flush(30) == 0
    expire(broker, settings, {3: 6})
    with pytest.raises(PipelineError, match="the records of partition 3 from offset 0 to 5 expired before they were read"):
        stream_kafka_to_bronze(spark, settings)
    ingested = stream_kafka_to_bronze(spark, replace(settings, kafka_options={"failOnDataLoss": "false"}))
    assert (ingested.records, losses(spark, settings)) == (2, [("Unhealthy", 6, ingested.note)])


def test_a_partition_that_lost_its_end_is_refused_also_where_losses_are_accepted(spark, settings):
    topic = TopicOffsets(TopicInfo("events", "id", (0, 1)), {0: 0, 1: 0}, {0: 80, 1: 9})
    accepting = replace(settings, kafka_options={"failOnDataLoss": "false"})
    append_to_bronze(spark, settings, [b"{}"], topic_id="id", first_offset=79)
    with pytest.raises(PipelineError, match=r"bronze's last record is at 79, but the checkpoint has 100, and is wrong"):
        refuse_or_record(spark, accepting, topic, {0: 100, 1: 9})
    append_to_bronze(spark, settings, [b"{}"], topic_id="id", first_offset=99)
    with pytest.raises(PipelineError, match=r"events: partition 0 ends at offset 80, but was read up to 100: .* recreate the topic"):
        refuse_or_record(spark, accepting, topic, {0: 100, 1: 9})


def test_a_topic_whose_id_is_told_from_now_on_is_not_read_twice(spark, settings):
    send(settings, 30)
    stream_kafka_to_bronze(spark, settings)
    # As by a service credential, with which Kafka cannot be asked for the topic's id.
    spark.sql(f"UPDATE {settings.table('bronze_events')} SET topic_id = 'unknown-{settings.kafka_topic}'")
    shutil.rmtree(settings.checkpoint_dir)
    with pytest.raises(PipelineError, match=rf"under the id unknown-{settings.kafka_topic}, .* log in to Kafka as it did before"):
        stream_kafka_to_bronze(spark, settings)
    assert len(held(spark, settings)) == 30


@pytest.mark.parametrize("option", [{"failOnDataLoss": "maybe"}, {"minPartitions": "abc"}, {"kafka.max.poll.records": "abc"}])
def test_an_option_that_kafkas_source_refuses_is_named(spark, settings, option):
    send(settings, 3)
    with pytest.raises(
        PipelineError, match=rf"Parameter 'kafka_options' \({next(iter(option))}\): Spark's Kafka source refuses it: .+"
    ) as refused:
        stream_kafka_to_bronze(spark, replace(settings, kafka_options=option))
    assert "\n" not in str(refused.value)


def test_a_timestamp_that_spark_cannot_hold_is_told_of(spark, settings):
    admin = AdminClient(client_config(settings.kafka))
    anything = ConfigEntry("message.timestamp.after.max.ms", str(2**63 - 1), incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, settings.kafka_topic, incremental_configs=[anything])
    for future in admin.incremental_alter_configs([resource]).values():
        future.result(30)
    produce(settings.kafka, [Record(b"", b"{}", 1_772_366_400 * 10**9)])
    with pytest.raises(PipelineError, match=f"Topic {settings.kafka_topic} holds a record whose timestamp is too large"):
        stream_kafka_to_bronze(spark, settings)


def test_the_checkpoint_of_any_topic_is_a_name_that_a_disk_takes():
    topic = TopicInfo("t" * 249, "A" * 22, (0,))
    assert len(Path(bronze.bronze_checkpoint(Settings(catalog="main"), topic)).name) <= 255
