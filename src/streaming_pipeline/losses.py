"""Records that bronze can never have: they expired in Kafka, or went with their topic, before they were read.

A run stops where it finds some. Who accepts the loss (`kafka_options={"failOnDataLoss": "false"}`) has it in `monitor_logs`, as a row
about `bronze_events`.
"""

from collections.abc import Mapping
from datetime import UTC, datetime

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from streaming_pipeline import tables
from streaming_pipeline.errors import PipelineError
from streaming_pipeline.kafka import TopicOffsets
from streaming_pipeline.settings import Settings


def expired(topic: TopicOffsets, next_offsets: Mapping[int, int]) -> dict[int, range]:
    """The offsets of each partition that bronze would read next and that Kafka does not hold any more.

    A partition that ends before the next offset was cut off (a broker lost what it had acknowledged): its range is empty.
    """
    gone = {}
    for partition, begin in topic.beginnings.items():
        following = next_offsets.get(partition, begin)
        if following < begin or following > topic.ends[partition]:
            gone[partition] = range(following, begin)
    return gone


def refuse_or_record(spark: SparkSession, settings: Settings, topic: TopicOffsets, next_offsets: Mapping[int, int]) -> str | None:
    """Raise `PipelineError` if bronze cannot go on from `next_offsets` without a loss; where that is accepted, record it.

    Returns what was recorded, if there was anything.
    """
    gone = expired(topic, next_offsets)
    if not gone:
        return None
    said = "; ".join(_say(partition, offsets, topic.ends[partition]) for partition, offsets in sorted(gone.items()))
    if settings.kafka_options.get("failOnDataLoss", "").lower() != "false":
        raise PipelineError(
            f"Topic {topic.info.topic}: {said}. Nothing brings them back. To go on without them (monitor_logs will tell) run once with "
            'the parameter kafka_options={"failOnDataLoss": "false"}; so that it does not happen again, run more often or give the topic '
            "a longer retention."
        )
    reason = f"Loss accepted. Topic {topic.info.topic}: {said}."
    begins = {f"{topic.info.topic_id}/{partition}": topic.beginnings[partition] for partition in gone}
    return _record(spark, settings, reason, "Unhealthy", sum(map(len, gone.values())), begins)


def record_recreated_topic(spark: SparkSession, settings: Settings, topic: TopicOffsets) -> str | None:
    """If bronze holds records of another topic of this name, and none of this one yet: record that what it had not read is gone."""
    held = (
        spark.table(settings.table("bronze_events"))
        .where(F.col("topic") == topic.info.topic)
        .groupBy("topic_id", "partition")
        .agg(F.max("offset").alias("last"), F.max("ingested_at").alias("at"))
        .orderBy("at", "partition")
        .collect()
    )
    if not held or any(row["topic_id"] == topic.info.topic_id for row in held):
        return None
    old = held[-1]["topic_id"]
    until = ", ".join(f"{row['partition']}: {row['last']}" for row in held if row["topic_id"] == old)
    reason = (
        f"Topic {topic.info.topic} was made anew (id {old}, now {topic.info.topic_id}): records of the old one behind those that bronze "
        f"has (last offset by partition: {until}) are gone, if there were any."
    )
    return _record(spark, settings, reason, "Unknown", None, {f"{topic.info.topic_id}/{p}": at for p, at in topic.beginnings.items()})


def _say(partition: int, offsets: range, end: int) -> str:
    if not offsets:
        return f"partition {partition} ends at offset {end}, before offset {offsets.start}, up to which it was read: Kafka has lost its end"
    return (
        f"the records of partition {partition} from offset {offsets.start} to {offsets.stop - 1} expired before they were read "
        f"({len(offsets):,} offsets)"
    )


def _record(spark: SparkSession, settings: Settings, reason: str, status: str, lost: int | None, until: dict[str, int]) -> str:
    tables.create_missing(spark, settings, [tables.MONITOR_LOGS])
    logged = spark.table(settings.table("monitor_logs"))
    # A run that ended between this row and its first batch finds the same loss again.
    if logged.where((F.col("table_name") == "bronze_events") & (F.col("status_reason") == reason)).isEmpty():
        row = {
            "run_time": datetime.now(UTC),
            "run_id": settings.run_id,
            "table_name": "bronze_events",
            "lost_records": lost,
            "status": status,
            "status_reason": reason,
            "read_until": until,
        }
        tables.append_rows(spark, settings, tables.MONITOR_LOGS, [row])
    return reason
