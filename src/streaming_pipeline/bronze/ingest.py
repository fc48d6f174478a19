"""Kafka → `bronze_events`: whatever is on the topic arrives, unchanged, exactly once, in bounded batches."""

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from pyspark.errors import IllegalArgumentException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from streaming_pipeline.bronze import losses
from streaming_pipeline.core import tables
from streaming_pipeline.core.contract import Contract, change, load_contract, remember
from streaming_pipeline.core.coordinates import behind
from streaming_pipeline.core.errors import PipelineError, whole_story
from streaming_pipeline.core.rules import check_patterns, judge
from streaming_pipeline.core.settings import SERVICE_CREDENTIAL, Settings
from streaming_pipeline.core.streams import CheckpointError, DamagedCheckpoint, Offsets, progress, read_until, remove, run_available_now
from streaming_pipeline.kafka import connection as kafka

_READ_FASTER = {
    "kafka.max.poll.records": "10000",  # of what is fetched the client would hand on 500 at once
    "maxRecordsPerPartition": "100000",  # else as many tasks as partitions, which parse while other cores wait
}

_WENT_ON = "reading went on behind the last records that bronze holds"

_LONGEST_NAME = 200
"""Letters of a topic in its checkpoint's name: with the topic's id, a folder's name has at most 255."""

_BAD_OPTION = re.compile(r"(?:ConfigException|IllegalArgumentException|AssertionError): (.+)|(For input string: \S+)")
"""How Spark's Kafka source and Kafka's client refuse an option."""


def to_bronze(records: DataFrame, contract: Contract, topic_id: str) -> DataFrame:
    """Rows of Spark's Kafka source → rows of `bronze_events`.

    The payload stays as received; beside it stand the contract's fields as texts, and what the contract says of them. It is judged
    here, in the pass that parses it, since silver looks at each batch several times.
    """
    received = records.select(
        F.lit(topic_id).alias("topic_id"),
        "topic",
        "partition",
        "offset",
        F.col("timestamp").alias("kafka_timestamp"),
        F.col("timestampType").alias("timestamp_type"),
        "key",
        F.col("value").alias("raw_payload"),
    )
    return judge(received, contract).select(
        *received.columns,
        *contract.field_names,
        "event_date",
        "reasons",
        "unknown_fields",
        F.lit(contract.fingerprint).alias("contract_fingerprint"),
        F.current_timestamp().alias("ingested_at"),
    )


@dataclass(frozen=True)
class Ingested:
    """How many records one run of the stage brought, and what it had to say."""

    records: int
    note: str = ""


def bronze_checkpoint(settings: Settings, topic: kafka.TopicInfo) -> str:
    """The checkpoint of the stream from this very topic: a recreated one begins anew instead of at the old one's offsets."""
    return settings.checkpoint(f"bronze/{topic.topic[:_LONGEST_NAME]}-{topic.topic_id}")


def held_until(spark: SparkSession, settings: Settings, topic_id: str, since: Mapping[int, int] | None = None) -> Offsets:
    """For each partition of this very topic the offset behind the last record that bronze holds; only of partitions of which it holds
    records from the offset `since` on, where that is given, and of partitions that are not named there."""
    held = spark.table(settings.table("bronze_events")).where(F.col("topic_id") == topic_id)
    if since:
        held = held.where(behind({f"{topic_id}/{partition}": offset for partition, offset in since.items()}))
    return {row["partition"]: row["last"] + 1 for row in held.groupBy("partition").agg(F.max("offset").alias("last")).collect()}


def goes_on(settings: Settings, topic: kafka.TopicInfo) -> Offsets:
    """Where the stream goes on, by its checkpoint; empty where that does not say, and the next run goes by bronze's rows."""
    try:
        return read_until(bronze_checkpoint(settings, topic)) or {}
    except DamagedCheckpoint:
        return {}


def waiting_offsets(settings: Settings) -> int:
    """How many offsets of the topic lie behind the last batch that is done. Kafka and the checkpoint are asked, not Spark."""
    topic = kafka.topic_offsets(settings.kafka)
    read = goes_on(settings, topic.info)
    return sum(max(0, end - max(read.get(partition, 0), topic.beginnings[partition])) for partition, end in topic.ends.items())


@dataclass(frozen=True)
class Beginning:
    """Where a run of the stream begins."""

    offsets: Offsets
    """Partition → the next offset; of a partition that is not named, the first."""
    is_anew: bool
    """Whether the stream begins at these offsets with a new checkpoint, or goes on with the one that it has."""
    note: str = ""
    taken_back: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    """Partition → first offset, and the one behind the last, of what was read and is not in bronze any more."""


def beginning(spark: SparkSession, settings: Settings, topic: kafka.TopicOffsets) -> Beginning:
    """Where the stream begins, by its checkpoint and by what bronze holds.

    Where the two differ, bronze is right. If it holds records behind the checkpoint's place, the checkpoint is older: a backup was
    restored, or a run was killed between the table's commit and the checkpoint's. If the checkpoint is gone or damaged, the stream has
    read each partition up to bronze's last record. Raises `PipelineError` where it is, and Kafka cannot be asked for its partitions:
    each of them must be named.
    """
    checkpoint, topic_id = bronze_checkpoint(settings, topic.info), topic.info.topic_id
    offsets, why = None, ""
    try:
        found = progress(checkpoint)
        offsets = found.kafka_offsets() if found else None
    except DamagedCheckpoint as damage:
        why = str(damage)
    if offsets is None:
        held = held_until(spark, settings, topic_id)
        if held and not topic.ends:
            raise PipelineError(
                f"The checkpoint of bronze is gone or damaged, bronze holds records of {topic.info.topic}, and with {SERVICE_CREDENTIAL} "
                "Kafka cannot be asked for its partitions: restore the checkpoint folder, or begin in another schema."
            )
        why = why or ("the checkpoint was gone" if held else "")
        return Beginning(held, is_anew=True, note=f"{why}: {_WENT_ON}" if why else "")
    try:
        last_batch = found.kafka_offsets(batches_before=1)
    except DamagedCheckpoint:
        last_batch = offsets  # Spark does not need it
    held = held_until(spark, settings, topic_id, since=last_batch)
    if newer := {partition: until for partition, until in held.items() if until > offsets.get(partition, 0)}:
        return Beginning(offsets | newer, is_anew=True, note=f"the checkpoint was older than bronze: {_WENT_ON}")
    lacking = {partition for partition, first in last_batch.items() if first < offsets[partition] and partition not in held}
    all_held = held_until(spark, settings, topic_id) if lacking else offsets
    # A restored table may lack records of partitions, too, of which the last batch had none.
    taken_back = {p: (all_held.get(p, 0), end) for p, end in offsets.items() if all_held.get(p, 0) < end}
    # A partition that was added since is to be read from its first record.
    return Beginning(dict.fromkeys(topic.ends, 0) | offsets, is_anew=False, taken_back=taken_back)


def starting_offsets(topic: kafka.TopicOffsets, next_offsets: Mapping[int, int]) -> str:
    """Spark's `startingOffsets`: for each partition the next offset, or the first that Kafka holds where that is later (an earlier one
    would stop the stream); -2, Kafka's earliest, where none is known."""
    known = {partition: max(offset, topic.beginnings.get(partition, 0)) for partition, offset in next_offsets.items()}
    return json.dumps({topic.info.topic: {str(partition): known.get(partition, -2) for partition in sorted({*topic.ends, *known})}})


def write_batch(records: DataFrame, batch_id: int, settings: Settings) -> None:
    """Append one micro-batch to bronze.

    Delta's own sink would leave out a batch whose number it has seen. After a restore that number can belong to other records, which
    would be lost. `beginning` keeps records from coming twice.
    """
    tables.append(settings, "bronze_events", records)


def stream_kafka_to_bronze(spark: SparkSession, settings: Settings) -> Ingested:
    """Bring what is new on the topic into `bronze_events`, and end.

    The broker is asked once before the stream starts, so that a wrong setting is a `PipelineError` in seconds, as are records that
    expired before they were read. Where checkpoint and table differ, the stream goes on behind what bronze holds (`beginning`).
    """
    try:
        return _ingest(spark, settings)
    except CheckpointError as error:  # which is gone by now
        again = _ingest(spark, settings)
        return replace(again, note="; ".join(filter(None, (f"{error}: {_WENT_ON}", again.note))))


def _ingest(spark: SparkSession, settings: Settings) -> Ingested:
    contract = load_contract(settings.contract_path)
    check_patterns(spark, contract, settings.contract_path)
    connection = settings.kafka
    topic = kafka.topic_offsets(connection)
    topic_id = topic.info.topic_id
    tables.create_missing(spark, settings, [tables.bronze_events(contract)])
    checkpoint = bronze_checkpoint(settings, topic.info)
    begin = beginning(spark, settings, topic)
    next_offsets, notes = begin.offsets, [begin.note]
    if begin.taken_back:
        notes.append(losses.record_taken_back(spark, settings, topic, begin.taken_back))
    if not next_offsets:
        notes.append(losses.record_recreated_topic(spark, settings, topic))
    notes.append(losses.refuse_or_record(spark, settings, topic, next_offsets))
    if begin.is_anew:
        remove(checkpoint)
    before = tables.row_count(spark, settings, "bronze_events")
    try:
        source = (
            spark.readStream.format("kafka")
            .options(**_READ_FASTER)
            .options(**kafka.spark_options(connection))
            .option("startingOffsets", starting_offsets(topic, next_offsets) if begin.is_anew and next_offsets else "earliest")
            .option("maxOffsetsPerTrigger", settings.max_offsets_per_trigger)
            .load()
        )
        # Without the secrets: what a batch closes over travels to where it runs.
        write = partial(write_batch, settings=replace(settings, secrets={}))
        run_available_now(to_bronze(source, contract, topic_id).writeStream.foreachBatch(write), "bronze", checkpoint)
    except CheckpointError:
        remove(checkpoint)
        raise
    except PipelineError:
        raise
    except Exception as error:
        _tell_of_options(settings, error)
        if "long overflow" in whole_story(error):
            raise PipelineError(
                f"Topic {topic.info.topic} holds a record whose timestamp is too large for milliseconds since 1970, and Spark cannot read "
                "past it: fix its producer, let the broker refuse such records (message.timestamp.after.max.ms), and delete the records "
                "up to it, or recreate the topic."
            ) from error
        # Spark tells of a broker that is gone, or of records that are, in pages: ask again, which says it in a sentence.
        try:
            now = kafka.topic_offsets(connection)
            losses.refuse_or_record(spark, settings, now, read_until(checkpoint) or {})
        except PipelineError as cause:
            raise PipelineError(f"The stream bronze stopped; what has arrived is kept, and the next run goes on. {cause}") from error
        raise
    notes.append(losses.record_replaced_topic(spark, settings, topic.info))
    if losses.is_accepted(settings):
        began = {partition: max(first, next_offsets.get(partition, first)) for partition, first in topic.beginnings.items()}
        now, read = kafka.topic_offsets(connection), read_until(checkpoint) or {}
        notes.append(losses.record_skipped(spark, settings, topic.info, began, now.beginnings, read))
    remembered = Path(settings.runs_dir, "contracts", f"{settings.schema}.json")
    notes.append(change(remembered, contract))
    with suppress(OSError):  # it is only for that note
        remember(remembered, contract)
    return Ingested(tables.row_count(spark, settings, "bronze_events") - before, "; ".join(filter(None, notes)))


def _tell_of_options(settings: Settings, error: Exception) -> None:
    """Raise a `PipelineError` that names the parameter if a stream failed since an option of `kafka_options` cannot be."""
    said = whole_story(error)
    refusal = _BAD_OPTION.search(f"IllegalArgumentException: {said}" if isinstance(error, IllegalArgumentException) else said)
    if settings.kafka_options and refusal:
        names = ", ".join(sorted(settings.kafka_options))
        raise PipelineError(
            f"Parameter 'kafka_options' ({names}): Spark's Kafka source refuses it: {(refusal[1] or refusal[2]).strip()}"
        ) from error
