"""Bronze without Kafka: rows as Spark's Kafka source has them, made by hand, through the real transform into the real table."""

import itertools
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from streaming_pipeline.bronze.ingest import to_bronze
from streaming_pipeline.core import tables
from streaming_pipeline.core.contract import Contract, load_contract
from streaming_pipeline.core.settings import Settings

T0 = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
KAFKA_SCHEMA = "key binary, value binary, topic string, partition int, offset bigint, timestamp timestamp, timestampType int"
# So deep that a function of Spark that recurses into values would overflow Java's stack; its parser allows a thousand levels.
DEEP = b'{"a":' * 985 + b"1" + b"}" * 985
_CONFIG = Path(__file__).parents[1] / "config"


def shipped_contract() -> Contract:
    """The contract that ships with the project."""
    return load_contract(_CONFIG / "event_contract.yml")


def event(event_id: str, /, at: datetime = T0, value: str = "10", event_type: str = "click", **more) -> bytes:
    """A valid event's payload; `more` adds or replaces fields, None takes one away."""
    fields = {"event_id": event_id, "event_type": event_type, "timestamp": at.strftime("%Y-%m-%dT%H:%M:%S.%fZ"), "value": value, **more}
    return json.dumps({name: text for name, text in fields.items() if text is not None}).encode()


def kafka_frame(spark, payloads, first_offset=0, partition=0, kafka_timestamp=None):
    """Payloads (bytes or None) → a frame as the Kafka source gives it; one second between records."""
    begin = kafka_timestamp or T0 + timedelta(seconds=5)
    offsets = itertools.count(first_offset)
    rows = [
        (None, payload, "events", partition, offset, begin + timedelta(seconds=offset - first_offset), 0)
        for payload, offset in zip(payloads, offsets, strict=False)
    ]
    return spark.createDataFrame(rows, KAFKA_SCHEMA)


def with_contract(settings: Settings, folder: Path, old: str, new: str) -> Settings:
    """The settings with a contract of their own, in which `new` stands for `old`."""
    text = Path(settings.contract_path).read_text()
    assert old in text
    changed = replace(settings, config_dir=str(folder / "config"))
    Path(changed.config_dir).mkdir(exist_ok=True)
    Path(changed.contract_path).write_text(text.replace(old, new))
    return changed


def with_field(settings: Settings, folder: Path, name: str) -> Settings:
    """The settings with a contract that has one more text."""
    value = "      - name: value\n"
    return with_contract(settings, folder, value, f"      - name: {name}\n        logicalType: string\n{value}")


def append_to_bronze(spark, settings, payloads, *, topic_id="topic-a", contract=None, **where) -> None:
    """Append payloads to the table `bronze_events` as the stream would."""
    contract = contract or shipped_contract()
    tables.create_missing(spark, settings, [tables.bronze_events(contract)])
    frame = to_bronze(kafka_frame(spark, payloads, **where), contract, topic_id)
    frame.coalesce(1).write.format("delta").mode("append").saveAsTable(settings.table("bronze_events"))
