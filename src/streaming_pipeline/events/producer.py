"""Records onto the topic: each is acknowledged by the broker, or there is an error that says why not."""

import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from streaming_pipeline.core.errors import PipelineError, UsageError
from streaming_pipeline.core.settings import KafkaSettings
from streaming_pipeline.core.wording import plural
from streaming_pipeline.events.synthetic import Record
from streaming_pipeline.kafka.connection import check_connection, client_config

MOST_BYTES = 50_000_000
"""So large a record may be for this client; the broker says what is too large for it."""
_OPTIONS = {
    "enable.idempotence": True,  # a retry neither doubles nor reorders what was sent
    "acks": "all",
    "compression.type": "lz4",
    "linger.ms": 20,
    "batch.size": 1_000_000,
    "message.max.bytes": MOST_BYTES,
    "queue.buffering.max.messages": 200_000,
    "message.timeout.ms": 60_000,
}
_PROGRESS_EVERY_SECONDS = 0.2


@dataclass
class ProduceReport:
    """What became of the records: all `sent` were handed to the client, `delivered` are those that the broker has acknowledged."""

    sent: int = 0
    delivered: int = 0
    failed: int = 0
    seconds: float = 0.0


def produce(
    kafka: KafkaSettings,
    records: Iterable[Record],
    *,
    rate: float | None = None,
    progress: Callable[[int], None] | None = None,
) -> ProduceReport:
    """Send `records` to the topic of `kafka`, at most `rate` a second, and wait until all are acknowledged.

    `progress` is called now and then with the number of records delivered so far, and once at the end. Raises `PipelineError` if a
    record is not delivered: with the broker's reason, and how many were delivered before sending stopped; `UsageError` for a rate
    that is not above zero. A `KeyboardInterrupt` leaves with how many were delivered, when what was handed over has arrived.
    """
    if rate is not None and rate <= 0:
        raise UsageError(f"rate is {rate}: it must be above 0 records a second.")
    check_connection(kafka)
    report = ProduceReport()
    errors: list[KafkaError] = []

    def on_delivery(error: KafkaError | None, message: Message) -> None:
        if error is None:
            report.delivered += 1
        else:
            errors.append(error)

    producer = Producer(client_config(kafka) | _OPTIONS | {"on_delivery": on_delivery})
    start = last_progress = time.monotonic()
    try:
        for record in records:
            if not _send(producer, kafka.topic, record, errors):
                break
            report.sent += 1
            producer.poll(0)
            if progress is not None and (now := time.monotonic()) - last_progress >= _PROGRESS_EVERY_SECONDS:
                progress(report.delivered)
                last_progress = now
            # Before the next record is asked for: a live stream stamps it at that moment.
            while rate is not None and (wait := start + report.sent / rate - time.monotonic()) > 0:
                # The client's own wait knows whole milliseconds alone, and at a thousand records a second would not wait at all.
                time.sleep(min(wait, _PROGRESS_EVERY_SECONDS))
                producer.poll(0)
        producer.flush()
    except BaseException as error:
        # Also when the records' source fails, or somebody stops it: what was handed over is on its way.
        producer.flush()
        if isinstance(error, KeyboardInterrupt):
            raise KeyboardInterrupt(f"{plural(report.delivered, 'record was', 'records were')} delivered to {kafka.topic}.") from None
        raise
    report.failed = len(errors)
    report.seconds = time.monotonic() - start
    if progress is not None:
        progress(report.delivered)
    if errors:
        raise PipelineError(
            f"Topic {kafka.topic!r} did not take every record: {report.delivered} of {report.delivered + report.failed} were delivered, "
            f"then sending stopped. The reason: {errors[0].str()}."
        )
    return report


def _send(producer: Producer, topic: str, record: Record, errors: list[KafkaError]) -> bool:
    """Hand one record to the client, waiting while its queue is full; False once something was refused."""
    while not errors:
        try:
            producer.produce(topic, record.value, record.key, timestamp=record.timestamp_ms or 0)  # 0: the client's clock
            return True
        except BufferError:
            producer.poll(0.1)
        except KafkaException as refused:  # by the client itself, before anything is sent
            errors.append(refused.args[0])
    return False


def lines_of(file: BinaryIO, name: str, before: str = "") -> Iterator[bytes]:
    """The lines of a file or pipe, at most `MOST_BYTES` of it at a time.

    Raises `UsageError` naming it and the line that is longer or cannot be read; `before` says what became of the lines before that.
    """
    number = 1
    try:
        while line := file.readline(MOST_BYTES + 1):
            if len(line) > MOST_BYTES:
                raise UsageError(
                    f"--file {name}: line {number:,} has more than {MOST_BYTES:,} bytes, too many for a record.{before} "
                    "Write one JSON object a line."
                )
            yield line
            number += 1
    except OSError as error:
        raise UsageError(f"--file {name}: line {number:,} cannot be read: {error.strerror}.{before}") from None


class LineRecords:
    """Each line of a file or pipe as one record, sent as it is; blank lines are left out.

    The key is the event's id, the line's field `id_field`. A line that is no JSON goes out too, without a key, since bronze takes
    anything; `not_json` counts them while iterating.
    """

    def __init__(self, lines: Iterable[bytes], id_field: str = "event_id") -> None:
        self._lines, self._id_field = lines, id_field
        self.not_json = 0

    def __iter__(self) -> Iterator[Record]:
        for line in self._lines:
            payload = line.rstrip(b"\r\n")
            if payload.strip():
                yield Record(self._key(payload), payload, None)

    def _key(self, payload: bytes) -> bytes | None:
        try:
            event = json.loads(payload)
        except (ValueError, RecursionError):
            self.not_json += 1
            return None
        event_id = event.get(self._id_field) if isinstance(event, dict) else None
        return str(event_id).encode(errors="replace") if isinstance(event_id, str | int) and event_id != "" else None
