"""Records that are put on a topic, and that expire from it, partition by partition."""

from confluent_kafka import Producer, TopicPartition

from streaming_pipeline.kafka import client_config, topic_offsets


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
