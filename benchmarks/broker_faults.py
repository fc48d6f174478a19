"""What becomes of a bronze stream whose broker stops, restarts or is killed in the middle of it?

Each fault has a topic of its own, and events go on arriving while bronze reads. Afterwards the broker runs again, bronze is run once
more, and every record of the topic must be in `bronze_events` exactly once. Parameter names are those of Spark's Kafka source.
"""

import argparse
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from bench import fresh_home, own_settings, table, topic_records, write_section
from confluent_kafka import Producer

from laptop.services.broker import Broker
from laptop.services.spark import start_session
from streaming_pipeline.bronze.ingest import stream_kafka_to_bronze
from streaming_pipeline.core.errors import PipelineError
from streaming_pipeline.core.settings import KafkaSettings, Settings
from streaming_pipeline.events import synthetic
from streaming_pipeline.events.producer import produce
from streaming_pipeline.kafka import connection as kafka

BATCH = 1_000


def kill(broker: Broker) -> None:
    """End the broker as a lost machine does."""
    os.kill(broker.status().pid, signal.SIGKILL)
    while broker.status().state == "running":
        time.sleep(0.05)


def freeze(broker: Broker) -> None:
    """Let the broker hold its connections and answer nothing."""
    os.kill(broker.status().pid, signal.SIGSTOP)


@dataclass(frozen=True)
class Fault:
    """What happens to the broker, and after how long it is back, if it is.

    `within_batch`: the stream has one batch only, and the fault meets the executor that reads it; else mostly the driver, which asks
    for offsets before each batch.
    """

    name: str
    happen: Callable[[Broker], object]
    back_after: float | None
    within_batch: bool = False

    @property
    def events(self) -> int:
        return 300_000 if self.within_batch else 15_000


FAULTS = (
    Fault("stopped, back after 20 s", Broker.stop, 20.0),
    Fault("killed, back after 20 s", kill, 20.0),
    Fault("killed for good", kill, None),
    Fault("frozen for good", freeze, None),
    Fault("killed within a batch, back after 20 s", kill, 20.0, within_batch=True),
    Fault("killed within a batch, for good", kill, None, within_batch=True),
)


class Arrivals(threading.Thread):
    """Records that go on arriving, twenty a second, whatever the broker does."""

    def __init__(self, connection: KafkaSettings) -> None:
        super().__init__(daemon=True)
        self._producer = Producer(kafka.client_config(connection) | {"enable.idempotence": True, "message.timeout.ms": 300_000})
        self._topic, self._ended = connection.topic, threading.Event()

    def run(self) -> None:
        while not self._ended.wait(0.05):
            self._producer.produce(self._topic, b"arriving", on_delivery=lambda *_: None)
            self._producer.poll(0)

    def end(self) -> None:
        """Stop, and wait until the broker has what was sent."""
        self._ended.set()
        self.join()
        assert self._producer.flush(60) == 0


def entries(settings: Settings, kind: str) -> int:
    """How many batches the stream has planned (`offsets`) or ended (`commits`); its checkpoint tells, so that Spark is not disturbed."""
    return len(list(Path(settings.checkpoint("bronze")).glob(f"*/{kind}/[0-9]*")))


def strike(broker: Broker, settings: Settings, fault: Fault) -> float:
    """Let the fault happen once the stream is at work; returns when it did."""
    while not entries(settings, "offsets") if fault.within_batch else entries(settings, "commits") < 3:
        time.sleep(0.05)
    if fault.within_batch:
        time.sleep(3)  # its tasks have begun
        assert not entries(settings, "commits"), "the batch was faster than the fault"
    at = time.monotonic()
    fault.happen(broker)
    if fault.back_after is not None:
        time.sleep(fault.back_after)
        broker.start(owned=True)
    return at


def measure(spark, broker: Broker, settings: Settings, fault: Fault) -> list[str]:
    """Run bronze, let the fault happen in the middle, run it again: a row of the table."""
    arrivals = Arrivals(settings.kafka)
    arrivals.start()
    outcome = "went on"
    with ThreadPoolExecutor(1) as pool:
        struck = pool.submit(strike, broker, settings, fault)
        try:
            stream_kafka_to_bronze(spark, settings)
        except PipelineError as error:
            outcome = f"failed: {said(error)}"
        ended = time.monotonic()
        at = struck.result()
    if fault.back_after is None:
        if broker.status().state == "running":  # frozen
            kill(broker)
        broker.start(owned=True)
    arrivals.end()
    stream_kafka_to_bronze(spark, settings)
    expected = sorted(topic_records(settings.kafka))
    rows = spark.table(settings.table("bronze_events")).select("partition", "offset").collect()
    assert sorted(map(tuple, rows)) == expected, f"{fault.name}: {len(rows)} rows for {len(expected)} records"
    return [fault.name, outcome, f"{ended - at:.0f}", f"{len(rows):,} of {len(expected):,}"]


def said(error: PipelineError) -> str:
    """What a user is told of a stopped stream: a sentence, and what Kafka's own client said."""
    return " ".join(str(error).replace("|", "/").split())


def main() -> None:
    """Run all faults, and write the section of RESULTS.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kafka-options", default="{}", help="options of Spark's Kafka source, as JSON")
    parser.add_argument("--faults", default=",".join(map(str, range(len(FAULTS)))), help="which of them, by number")
    parser.add_argument("--dry", action="store_true", help="print the rows, write nothing")
    options = parser.parse_args()
    home = fresh_home("broker_faults")
    broker = Broker(home)
    broker.start(owned=True)
    spark = start_session(home)
    rows = []
    try:
        for number in map(int, options.faults.split(",")):
            fault, topic = FAULTS[number], f"fault_{number}"
            broker.create_topic(topic)
            produce(broker.kafka_settings("SSL", topic), synthetic.generate(fault.events, seed=number, faults=[]))
            settings = own_settings(
                home,
                topic,
                kafka_topic=topic,
                kafka_options=json.loads(options.kafka_options),
                max_offsets_per_trigger=1_000_000 if fault.within_batch else BATCH,
                secrets=broker.secrets("SSL", topic),
            )
            rows.append(measure(spark, broker, settings, fault))
            print(*rows[-1], sep=" | ", flush=True)
    finally:
        spark.stop()
        broker.stop()
    if not options.dry:
        header = ["the broker is", "the stream", "seconds from then to its end", "records in bronze after the next run"]
        write_section(
            "Broker faults",
            f"Twenty records a second arrive while bronze reads batches of {BATCH:,}, or one large batch. After the next run bronze holds "
            "each record of the topic exactly once.\n\n" + table(header, rows),
        )


if __name__ == "__main__":
    main()
