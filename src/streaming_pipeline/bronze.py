"""Kafka → `bronze_events`: whatever is on the topic arrives, unchanged, exactly once, in bounded batches."""

import json

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from streaming_pipeline import kafka, tables
from streaming_pipeline.contract import Contract, load_contract, parse_payload
from streaming_pipeline.errors import PipelineError
from streaming_pipeline.settings import Settings
from streaming_pipeline.streams import has_checkpoint, run_available_now


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
    return contract.judge(parse_payload(received, contract)).select(
        *received.columns,
        *contract.field_names,
        "event_date",
        "reasons",
        "unknown_fields",
        F.lit(contract.fingerprint).alias("contract_fingerprint"),
        F.current_timestamp().alias("ingested_at"),
    )


def starting_offsets(spark: SparkSession, settings: Settings, topic: kafka.TopicInfo) -> str:
    """Where a stream without a checkpoint begins: behind what bronze holds of this very topic, else at the earliest record.

    Returns Spark's `startingOffsets`: `earliest`, or JSON with an offset for each partition (-2 is Kafka's earliest).
    """
    held = (
        spark.table(settings.table("bronze_events"))
        .where(F.col("topic_id") == topic.topic_id)
        .groupBy("partition")
        .agg(F.max("offset").alias("last"))
        .collect()
    )
    if not held:
        return "earliest"
    if not topic.partitions:
        raise PipelineError(
            f"The checkpoint of bronze is gone, bronze holds records of {topic.topic}, and with databricks.serviceCredential Kafka "
            "cannot be asked for its partitions: restore the checkpoint folder, or run once with another way to log in."
        )
    behind = {row["partition"]: row["last"] + 1 for row in held}
    return json.dumps({topic.topic: {str(p): behind.get(p, -2) for p in sorted({*topic.partitions, *behind})}})


def stream_kafka_to_bronze(spark: SparkSession, settings: Settings) -> int:
    """Bring what is new on the topic into `bronze_events`, and end. Returns how many records arrived.

    The broker is asked once before the stream starts, so that a wrong setting is a `PipelineError` in seconds. The checkpoint's
    name holds the topic's id: a recreated topic begins anew instead of being read from the old one's offsets.
    """
    contract = load_contract(settings.contract_path)
    connection = settings.kafka
    topic = kafka.check_connection(connection)
    tables.create_missing(spark, settings, [tables.bronze_events(contract)])
    checkpoint = settings.checkpoint(f"bronze/{topic.topic}-{topic.topic_id}")
    begin = "earliest" if has_checkpoint(checkpoint) else starting_offsets(spark, settings, topic)
    source = (
        spark.readStream.format("kafka")
        .options(**kafka.spark_options(connection))
        .option("startingOffsets", begin)
        .option("maxOffsetsPerTrigger", settings.max_offsets_per_trigger)
        .load()
    )
    writer = to_bronze(source, contract, topic.topic_id).writeStream.format("delta").outputMode("append")
    before = tables.row_count(spark, settings, "bronze_events")
    run_available_now(writer, "bronze", checkpoint, into=settings.table("bronze_events"))
    return tables.row_count(spark, settings, "bronze_events") - before
