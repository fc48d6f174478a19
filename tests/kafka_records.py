"""Records that are put on a topic, and that expire from it, partition by partition."""

from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource

from streaming_pipeline.kafka.connection import client_config, topic_offsets


def send(settings, count):
    """Put `count` records on the topic, on each partition as many; returns how many each holds in all."""
    put(settings, [number % 3 for number in range(count)])
    return topic_offsets(settings.kafka).ends


def put(settings, partitions, value=b"{}", **more):
    """Put a record on each of these partitions, in order."""
    producer = Producer(client_config(settings.kafka))
    for partition in partitions:
        producer.produce(settings.kafka_topic, value, partition=partition, **more)
    assert producer.flush(30) == 0


def expire(broker, settings, until):
    """Let the records before these offsets be deleted, as retention does."""
    places = [TopicPartition(settings.kafka_topic, partition, offset) for partition, offset in until.items()]
    admin = broker._admin()  # held, since its answers die with it
    for future in admin.delete_records(places).values():
        future.result(30)


def let_any_time_in(broker, topic):
    """Let the topic take records however far ahead they are stamped, as brokers before Kafka 4 do."""
    entry = ConfigEntry("message.timestamp.after.max.ms", str(2**63 - 1), incremental_operation=AlterConfigOpType.SET)
    admin = broker._admin()
    for future in admin.incremental_alter_configs([ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=[entry])]).values():
        future.result(30)
