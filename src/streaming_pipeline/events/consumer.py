"""A look at what is on the topic; nothing is committed, so looking changes nothing."""

from collections.abc import Iterator
from typing import NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from streaming_pipeline.core.errors import PipelineError, UsageError
from streaming_pipeline.core.settings import KafkaSettings
from streaming_pipeline.kafka.connection import client_config, topic_offsets

_OPTIONS = {
    "group.id": "streaming-pipeline-look",  # the client wants one, though partitions are assigned by hand and nothing is committed
    "enable.auto.commit": False,
    "enable.partition.eof": True,
    "isolation.level": "read_committed",
    "auto.offset.reset": "earliest",
}
_SILENCE_SECONDS = 30


class ConsumedRecord(NamedTuple):
    """One record as it lies on the topic."""

    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None


def consume(kafka: KafkaSettings, *, limit: int | None = 10, from_beginning: bool = True, follow: bool = False) -> Iterator[ConsumedRecord]:
    """Up to `limit` records (None: all) of the topic of `kafka`, each partition in order, until the ends that it has now.

    `from_beginning` False gives the newest ones instead: the last few of each partition, `limit` in all. With `follow` it goes on
    waiting for new records, and with `from_beginning` False gives only those. Raises `PipelineError` if the topic does not exist or
    the broker does not answer, `UsageError` for a limit below 1.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"limit is {limit}: it must be at least 1.")
    offsets = topic_offsets(kafka)
    starts, ends = offsets.beginnings, offsets.ends
    if not from_beginning and follow:
        starts = ends
    elif not from_beginning and limit is not None:
        starts = _newest(starts, ends, limit)
    return _read(kafka, starts, {partition: end for partition, end in ends.items() if end > starts[partition]}, limit, follow)


def _newest(starts: dict[int, int], ends: dict[int, int], limit: int) -> dict[int, int]:
    """Where to begin so that `limit` offsets lie ahead, as evenly over the partitions as what they hold allows."""
    begin = {}
    # The smallest first: what it cannot give, the others do.
    for left, partition in zip(
        range(len(starts), 0, -1), sorted(starts, key=lambda partition: ends[partition] - starts[partition]), strict=True
    ):
        begin[partition] = max(starts[partition], ends[partition] - -(-limit // left))
        limit -= ends[partition] - begin[partition]
    return begin


def _read(kafka: KafkaSettings, starts: dict[int, int], ends: dict[int, int], limit: int | None, follow: bool) -> Iterator[ConsumedRecord]:
    """Records from `starts` on; a partition leaves `ends` once it is read up to there."""
    consumer = Consumer(client_config(kafka) | _OPTIONS)
    try:
        consumer.assign([TopicPartition(kafka.topic, partition, offset) for partition, offset in starts.items()])
        given = silent = 0
        while (ends or follow) and given != limit:
            message = consumer.poll(1.0)
            silent = silent + 1 if message is None else 0
            if silent >= _SILENCE_SECONDS and not follow:
                raise PipelineError(f"Reading topic {kafka.topic!r} stopped: the broker has been silent for {_SILENCE_SECONDS} s.")
            if message is None:
                continue
            partition, end = message.partition(), ends.get(message.partition(), 0)
            if (error := message.error()) is not None:
                if error.code() != KafkaError._PARTITION_EOF:
                    raise PipelineError(f"Reading topic {kafka.topic!r} failed: {error.str()}.")
                # The last offset need not be a record that can be read: transactions leave markers.
                ends.pop(partition, None)
            elif follow or message.offset() < end:
                yield ConsumedRecord(partition, message.offset(), message.timestamp()[1], message.key(), message.value())
                given += 1
            if error is None and message.offset() + 1 >= end:
                ends.pop(partition, None)
    except KafkaException as error:
        raise PipelineError(f"Reading topic {kafka.topic!r} failed: {error.args[0].str()}.") from None
    finally:
        consumer.close()
