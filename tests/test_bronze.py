"""Kafka to bronze: nothing lost in silence, nothing twice, by a real broker."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from confluent_kafka import Producer, TopicPartition

from streaming_pipeline.bronze import stream_kafka_to_bronze
from streaming_pipeline.errors import PipelineError
from streaming_pipeline.kafka import client_config, topic_offsets
from streaming_pipeline.monitoring.monitor import monitor_silver_events
from streaming_pipeline.silver import cleanse_bronze_to_silver


def send(settings, count):
    """Put `count` records on the topic, on each partition as many; returns how many each holds in all."""
    producer = Producer(client_config(settings.kafka))
    for number in range(count):
        producer.produce(settings.kafka_topic, b"{}", partition=number % 3)
    assert producer.flush(30) == 0
    return topic_offsets(settings.kafka).ends


def expire(broker, settings, until):
    """Let the records before these offsets be deleted, as retention does."""
    places = [TopicPartition(settings.kafka_topic, partition, offset) for partition, offset in until.items()]
    admin = broker._admin()  # held, since its answers die with it
    for future in admin.delete_records(places).values():
        future.result(30)


def held(spark, settings):
    """The (topic_id, partition, offset) of bronze's rows."""
    return sorted(tuple(row) for row in spark.table(settings.table("bronze_events")).select("topic_id", "partition", "offset").collect())


def losses(spark, settings):
    """What monitor_logs tells of bronze."""
    rows = spark.table(settings.table("monitor_logs")).where("table_name = 'bronze_events'").orderBy("run_time").collect()
    return [(row["status"], row["lost_records"], row["status_reason"]) for row in rows]


def test_records_that_expired_unread_stop_the_run_until_the_loss_is_accepted_and_recorded(spark, settings, broker):
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
    assert f"{topic} was made anew (id {old}, now {new})" in reason
    assert stream_kafka_to_bronze(spark, settings).note == ""
    # The whole of both topics goes through the law.
    cleanse_bronze_to_silver(spark, settings)
    look = monitor_silver_events(spark, settings)
    assert (look.unaccounted_records, look.lost_records, look.quarantined_events) == (0, 0, 50)


def test_a_damaged_checkpoint_is_named_and_without_it_nothing_comes_twice(spark, settings):
    send(settings, 30)
    stream_kafka_to_bronze(spark, settings)
    cleanse_bronze_to_silver(spark, settings)
    send(settings, 6)
    for stage, stream in ((stream_kafka_to_bronze, "bronze"), (cleanse_bronze_to_silver, "silver")):
        (offsets,) = Path(settings.checkpoint_dir).glob(f"*/{stream}/**/offsets")
        newest = max(offsets.glob("[0-9]*"), key=lambda file: int(file.name))
        newest.write_text("")  # as a machine leaves it that lost its power
        with pytest.raises(PipelineError, match=rf"checkpoint's file .*/offsets/{newest.name} is missing or damaged: remove") as refused:
            stage(spark, settings)
        assert str(offsets.parent) in str(refused.value)
        shutil.rmtree(offsets.parent)
        assert stage(spark, settings).records == (6 if stream == "bronze" else 0)
    assert len(set(held(spark, settings))) == len(held(spark, settings)) == 36
    assert spark.table(settings.table("quarantined_events")).count() == 36
