"""Kafka → `bronze_events`: whatever is on the topic arrives, unchanged, exactly once, in bounded batches."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from pyspark.errors import IllegalArgumentException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from streaming_pipeline import kafka, losses, tables
from streaming_pipeline.contract import Contract, load_contract
from streaming_pipeline.errors import PipelineError, whole_story
from streaming_pipeline.rules import check_patterns, judge
from streaming_pipeline.settings import SERVICE_CREDENTIAL, Settings
from streaming_pipeline.streams import read_until, run_available_now

_READ_FASTER = {
    "kafka.max.poll.records": "10000",  # of what is fetched the client would hand on 500 at once
    "maxRecordsPerPartition": "100000",  # else as many tasks as partitions, which parse while other cores wait
}

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


def held_until(spark: SparkSession, settings: Settings, topic_id: str) -> dict[int, int]:
    """For each partition of this very topic the offset behind the last record that bronze holds."""
    held = spark.table(settings.table("bronze_events")).where(F.col("topic_id") == topic_id)
    return {row["partition"]: row["last"] + 1 for row in held.groupBy("partition").agg(F.max("offset").alias("last")).collect()}


def waiting_offsets(settings: Settings) -> int:
    """How many offsets of the topic lie behind what the stream has read, or planned to. Kafka and the checkpoint are asked, not Spark."""
    topic = kafka.topic_offsets(settings.kafka)
    read = read_until(bronze_checkpoint(settings, topic.info)) or {}
    return sum(max(0, end - max(read.get(partition, 0), topic.beginnings[partition])) for partition, end in topic.ends.items())


def starting_offsets(topic: kafka.TopicOffsets, next_offsets: Mapping[int, int]) -> str:
    """Spark's `startingOffsets`: for each partition the next offset, or the first that Kafka holds where that is later (an earlier one
    would stop the stream); -2, Kafka's earliest, where none is known."""
    known = {partition: max(offset, topic.beginnings.get(partition, 0)) for partition, offset in next_offsets.items()}
    return json.dumps({topic.info.topic: {str(partition): known.get(partition, -2) for partition in sorted({*topic.ends, *known})}})


def stream_kafka_to_bronze(spark: SparkSession, settings: Settings) -> Ingested:
    """Bring what is new on the topic into `bronze_events`, and end.

    The broker is asked once before the stream starts, so that a wrong setting is a `PipelineError` in seconds, as are records that
    expired before they were read. Without a checkpoint the stream goes on behind what bronze holds.
    """
    contract = load_contract(settings.contract_path)
    check_patterns(spark, contract, settings.contract_path)
    connection = settings.kafka
    topic = kafka.topic_offsets(connection)
    topic_id = topic.info.topic_id
    tables.create_missing(spark, settings, [tables.bronze_events(contract)])
    checkpoint = bronze_checkpoint(settings, topic.info)
    next_offsets, begin, note = read_until(checkpoint), "earliest", None
    if next_offsets is None and (next_offsets := held_until(spark, settings, topic_id)):
        if not topic.ends:
            raise PipelineError(
                f"The checkpoint of bronze is gone, bronze holds records of {topic.info.topic}, and with {SERVICE_CREDENTIAL} Kafka "
                "cannot be asked for its partitions: restore the checkpoint folder, or begin in another schema."
            )
        begin = starting_offsets(topic, next_offsets)
        note = "the checkpoint was gone: reading went on behind the last records that bronze holds"
    elif next_offsets:
        next_offsets = dict.fromkeys(topic.ends, 0) | next_offsets  # a partition that was added since is to be read from its first record
    else:
        note = losses.record_recreated_topic(spark, settings, topic)
    note = losses.refuse_or_record(spark, settings, topic, next_offsets) or note
    before = tables.row_count(spark, settings, "bronze_events")
    try:
        source = (
            spark.readStream.format("kafka")
            .options(**_READ_FASTER)
            .options(**kafka.spark_options(connection))
            .option("startingOffsets", begin)
            .option("maxOffsetsPerTrigger", settings.max_offsets_per_trigger)
            .load()
        )
        writer = to_bronze(source, contract, topic_id).writeStream.format("delta").outputMode("append")
        run_available_now(writer, "bronze", checkpoint, into=settings.table("bronze_events"))
    except PipelineError:
        raise
    except Exception as error:
        _tell_of_options(settings, error)
        if "long overflow" in whole_story(error):
            raise PipelineError(
                f"Topic {topic.info.topic} holds a record whose timestamp is too large for milliseconds since 1970, and Spark cannot read "
                "past it: mend its producer, let the broker refuse such records (message.timestamp.after.max.ms), and have the records "
                "up to it deleted, or the topic made anew."
            ) from error
        # Spark tells of a broker that is gone, or of records that are, in pages: ask again, which says it in a sentence.
        try:
            now = kafka.topic_offsets(connection)
            losses.refuse_or_record(spark, settings, now, read_until(checkpoint) or {})
        except PipelineError as cause:
            raise PipelineError(f"The stream bronze stopped; what has arrived is kept, and the next run goes on. {cause}") from error
        raise
    if losses.is_accepted(settings):
        began = {partition: max(first, next_offsets.get(partition, first)) for partition, first in topic.beginnings.items()}
        now, read = kafka.topic_offsets(connection), read_until(checkpoint) or {}
        note = losses.record_skipped(spark, settings, topic.info, began, now.beginnings, read) or note
    return Ingested(tables.row_count(spark, settings, "bronze_events") - before, note or "")


def _tell_of_options(settings: Settings, error: Exception) -> None:
    """Raise a `PipelineError` that names the parameter if a stream failed since an option of `kafka_options` cannot be."""
    said = whole_story(error)
    refusal = _BAD_OPTION.search(f"IllegalArgumentException: {said}" if isinstance(error, IllegalArgumentException) else said)
    if settings.kafka_options and refusal:
        names = ", ".join(sorted(settings.kafka_options))
        raise PipelineError(
            f"Parameter 'kafka_options' ({names}): Spark's Kafka source refuses it: {(refusal[1] or refusal[2]).strip()}"
        ) from error
