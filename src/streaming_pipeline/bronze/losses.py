"""Records that bronze can never have: they expired in Kafka, or went with their topic, before they were read.

A run stops where it finds some. Who accepts the loss (`kafka_options={"failOnDataLoss": "false"}`) has it in `monitor_logs`, as a row
about `bronze_events`.
"""

from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from streaming_pipeline.core import tables
from streaming_pipeline.core.coordinates import count_by_partition, lies_in
from streaming_pipeline.core.errors import PipelineError
from streaming_pipeline.core.settings import KafkaSettings, Settings
from streaming_pipeline.core.wording import plural
from streaming_pipeline.kafka.connection import TopicInfo, TopicOffsets, check_connection, range_options, unknown_id


def is_accepted(settings: Settings) -> bool:
    """Whether bronze is to go on without records that expired."""
    return any(name.lower() == "failondataloss" and value.strip().lower() == "false" for name, value in settings.kafka_options.items())


def refuse_or_record(spark: SparkSession, settings: Settings, topic: TopicOffsets, next_offsets: Mapping[int, int]) -> str | None:
    """Raise `PipelineError` if bronze cannot go on from `next_offsets` without a loss; where that is accepted, record it.

    Returns what was recorded, if there was anything.
    """
    for partition, end in topic.ends.items():
        following = next_offsets.get(partition, 0)
        if end < following:
            bronze = spark.table(settings.table("bronze_events")).where(F.col("topic_id") == topic.info.topic_id)
            last = bronze.where(F.col("partition") == partition).agg(F.max("offset")).first()[0]
            if last is not None and last < end:
                folder = f"bronze/{topic.info.topic}-{topic.info.topic_id}"
                raise PipelineError(
                    f"Topic {topic.info.topic}: partition {partition} ends at offset {end}, and bronze's last record is at {last}, but the "
                    f"checkpoint has {following}, and is wrong. Remove its folder, {folder} in {settings.checkpoint('')}: the stream goes "
                    "on behind bronze's last record."
                )
            # Nothing to accept: from here on the partition gives other records the offsets of those that bronze has.
            raise PipelineError(
                f"Topic {topic.info.topic}: partition {partition} ends at offset {end}, but was read up to {following}: Kafka has lost its "
                "end, and will give these offsets to other records. Delete and recreate the topic (bronze tells it from the old one), "
                "or use another."
            )
    gone = {
        partition: range(next_offsets[partition], begin)
        for partition, begin in topic.beginnings.items()
        if next_offsets.get(partition, begin) < begin
    }
    if not gone:
        return None
    said = "; ".join(_say(partition, offsets) for partition, offsets in sorted(gone.items()))
    if not is_accepted(settings):
        raise PipelineError(
            f"Topic {topic.info.topic}: {said}. They cannot be recovered. To go on without them (monitor_logs records the loss) run "
            'once with the parameter kafka_options={"failOnDataLoss": "false"}. To prevent it from happening again, run more often or give '
            "the topic a longer retention."
        )
    reason = f"Loss accepted. Topic {topic.info.topic}: {said}."
    begins = {f"{topic.info.topic_id}/{partition}": topic.beginnings[partition] for partition in gone}
    return _record(spark, settings, reason, "Unhealthy", sum(map(len, gone.values())), begins)


def record_skipped(
    spark: SparkSession, settings: Settings, topic: TopicInfo, began: Mapping[int, int], now: Mapping[int, int], read: Mapping[int, int]
) -> str | None:
    """Record what expired while a run that accepts it was reading: its stream passes over such offsets and says nothing.

    By partition: `began` is where the run began to read, `now` Kafka's first offset after it, `read` the offset that it came to.
    """
    passed = {p: (first, min(now.get(p, first), read.get(p, first))) for p, first in sorted(began.items())}
    passed = {partition: (first, end) for partition, (first, end) in passed.items() if first < end}
    if not passed:
        return None
    held = count_by_partition(spark.table(settings.table("bronze_events")).where(lies_in(topic.topic_id, passed)))
    lost = {p: count for p, (first, end) in passed.items() if (count := end - first - held.get(p, 0))}
    if not lost:
        return None
    said = "; ".join(f"{plural(n, 'offset')} of partition {p} from {passed[p][0]} to {passed[p][1] - 1}" for p, n in lost.items())
    reason = f"Loss accepted. Topic {topic.topic}: expired while the run was reading: {said}."
    return _record(spark, settings, reason, "Unhealthy", sum(lost.values()), {f"{topic.topic_id}/{p}": passed[p][1] for p in lost})


def record_taken_back(spark: SparkSession, settings: Settings, topic: TopicOffsets, unread: Mapping[int, tuple[int, int]]) -> str | None:
    """Record as lost what Kafka holds in these ranges (partition → first offset, and the one behind the last): bronze had read it, and
    has it no more.

    The records are not read again. Somebody may have deleted them for good reason.
    """
    unread = {p: (max(first, topic.beginnings.get(p, 0)), end) for p, (first, end) in sorted(unread.items())}
    unread = {partition: (first, end) for partition, (first, end) in unread.items() if first < end}
    if topic.ends:
        lost = count_in_kafka(spark, settings.kafka, topic.info, unread) if unread else {}
    else:  # Kafka cannot be asked: markers of transactions count, too
        lost = {partition: end - first for partition, (first, end) in unread.items()}
    if not lost:
        return None  # markers of transactions
    said = "; ".join(f"{count:,} of partition {p} from offset {unread[p][0]} to {unread[p][1] - 1}" for p, count in sorted(lost.items()))
    reason = (
        f"Topic {topic.info.topic}: bronze has lost records that it had: {said}. An earlier state of the table was restored, or its newest "
        "rows were deleted. The job backfill_bronze brings back what Kafka still holds."
    )
    return _record(spark, settings, reason, "Unhealthy", sum(lost.values()), {f"{topic.info.topic_id}/{p}": unread[p][1] for p in lost})


def count_in_kafka(
    spark: SparkSession, connection: KafkaSettings, topic: TopicInfo, ranges: Mapping[int, tuple[int, int]]
) -> dict[int, int]:
    """How many records (read_committed) Kafka holds from the first of these offsets to before the second, by partition that has any."""
    source = spark.read.format("kafka").options(**range_options(connection, topic, ranges))
    return count_by_partition(source.option("failOnDataLoss", "false").load())


def record_recreated_topic(spark: SparkSession, settings: Settings, topic: TopicOffsets) -> str | None:
    """If bronze holds records of another topic of this name, and none of this one yet: record that what it had not read is gone.

    Raises `PipelineError` where it cannot be told whether it is another one, since one of the two has no id.
    """
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
    if unknown_id(topic.info.topic) in (old, topic.info.topic_id):
        raise PipelineError(
            f"Topic {topic.info.topic}: bronze holds records of it under the id {old}, now it comes as {topic.info.topic_id}: it cannot be "
            "known whether these are the same records. Let bronze log in to Kafka as it did before, or begin in another schema."
        )
    until = ", ".join(f"{row['partition']}: {row['last']}" for row in held if row["topic_id"] == old)
    reason = (
        f"Topic {topic.info.topic} was recreated (id {old}, now {topic.info.topic_id}): records of the old one behind those that bronze "
        f"has (last offset by partition: {until}) are gone, if there were any."
    )
    return _record(spark, settings, reason, "Unknown", None, {f"{topic.info.topic_id}/{p}": at for p, at in topic.beginnings.items()})


def record_replaced_topic(spark: SparkSession, settings: Settings, topic: TopicInfo) -> str | None:
    """Record that the topic was deleted and recreated while a run was reading it, if it was.

    A stream knows a topic by its name only, and continues with the new topic at the offsets of the old one. The next run reads the new
    topic from its beginning.
    """
    with suppress(PipelineError):  # the records have been read; if Kafka or the topic is gone, the next run says so
        now = check_connection(settings.kafka)
        if now.topic_id != topic.topic_id:
            reason = (
                f"Topic {topic.topic} was recreated while a run was reading it (id {topic.topic_id}, now {now.topic_id}): records of the "
                "old one that had not been read are gone, and bronze may hold some of the new one under the id of the old one, too."
            )
            return _record(spark, settings, reason, "Unhealthy", None, {})
    return None


def _say(partition: int, offsets: range) -> str:
    return (
        f"the records of partition {partition} from offset {offsets.start} to {offsets.stop - 1} expired before they were read "
        f"({plural(len(offsets), 'offset')})"
    )


def _record(spark: SparkSession, settings: Settings, reason: str, status: str, lost: int | None, until: dict[str, int]) -> str:
    tables.create_missing(spark, settings, [tables.MONITOR_LOGS])
    logged = spark.table(settings.table("monitor_logs"))
    is_look = F.col("table_name") == "silver_events"
    newest, look = logged.agg(F.max("run_time"), F.max(F.when(is_look, F.col("run_time")))).first()
    # A run that ended between this row and its first batch finds the same loss again; behind a look it is another one, in the same words.
    same = (F.col("table_name") == "bronze_events") & (F.col("status_reason") == reason)
    if logged.where(same & (F.col("run_time") > F.lit(look) if look else F.lit(True))).isEmpty():
        # Behind the newest row also where the clock was set back since: alerts go by it.
        now = datetime.now(UTC)
        row = {
            "run_time": max(now, newest.astimezone(UTC) + timedelta(milliseconds=1)) if newest else now,
            "run_id": settings.run_id,
            "table_name": "bronze_events",
            "lost_records": lost,
            "status": status,
            "status_reason": reason,
            "read_until": until,
        }
        tables.append_rows(spark, settings, tables.MONITOR_LOGS, [row])
    return reason
