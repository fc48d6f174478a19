"""Is every record accounted for? Bronze = silver + duplicates + open quarantine, by coordinates, and Kafka = bronze."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame, Row, SparkSession
from pyspark.sql import functions as F

from streaming_pipeline import kafka, tables
from streaming_pipeline.coordinates import COORDINATES
from streaming_pipeline.settings import KafkaSettings, Settings

Offsets = dict[str, int]
"""`topic_id/partition` → the next offset that is not looked at yet."""


@dataclass(frozen=True)
class Conservation:
    """What a look at the tables found. `verified_until` moves on only where everything is accounted for."""

    unaccounted: int
    totals: dict[str, int]
    verified_until: Offsets
    bronze_until: Offsets
    bronze_spans: tuple[tuple[str, int, int, int, int], ...]
    """(topic_id, partition, first, last, rows) of the bronze records looked at; `first` is where the look before had ended."""


def count_rows(spark: SparkSession, settings: Settings) -> dict[str, int]:
    """How many rows each table of the law has, and how much of quarantine is open. Delta's statistics say so; no file is read."""
    counted = ("bronze_events", "silver_events", "duplicate_events", "quarantined_events")
    totals = {name: tables.row_count(spark, settings, name) for name in counted}
    resolved = spark.table(settings.table("quarantined_events")).where("resolved_at IS NOT NULL").count()
    return {**totals, "open_quarantine": totals["quarantined_events"] - resolved}


def check(spark: SparkSession, settings: Settings, verified_until: Mapping[str, int], totals: dict[str, int]) -> Conservation:
    """Compare the tables: whole by `totals` of `count_rows`, and record by record what lies behind `verified_until`.

    The records behind are compared by count and by the sum of their coordinates' hashes, one narrow pass over each table
    without a shuffle; only where these differ are coordinates joined to say how many records are at fault.
    """
    table = lambda name: spark.table(settings.table(name))  # noqa: E731
    open_quarantine = table("quarantined_events").where("resolved_at IS NULL")
    surplus = totals["bronze_events"] - totals["silver_events"] - totals["duplicate_events"] - totals["open_quarantine"]

    new = behind(verified_until)
    arrived = table("bronze_events").where(new).select(*COORDINATES)
    placed = table("silver_events").where(new).select(*COORDINATES)
    for frame in (table("duplicate_events"), open_quarantine):
        placed = placed.unionByName(frame.where(new).select(*COORDINATES))
    spans = _spans(arrived, placed)
    bronze_spans = [row for row in spans if row["side"] == "arrived"]
    balanced = surplus == 0 and _digest(bronze_spans) == _digest([row for row in spans if row["side"] == "placed"])
    unaccounted = 0 if balanced else max(abs(surplus), _count_unaccounted(arrived, placed))
    bronze_until = {**verified_until, **{_key(row): row["last"] + 1 for row in bronze_spans}}
    return Conservation(
        unaccounted=unaccounted,
        totals=totals,
        verified_until=dict(verified_until) if unaccounted else bronze_until,
        bronze_until=bronze_until,
        bronze_spans=tuple(
            (row["topic_id"], row["partition"], min(row["first"], verified_until.get(_key(row), row["first"])), row["last"], row["rows"])
            for row in bronze_spans
        ),
    )


def lost_records(
    spark: SparkSession, connection: KafkaSettings, topic: kafka.TopicInfo, spans: tuple[tuple[str, int, int, int, int], ...]
) -> int:
    """How many records Kafka holds within the spans that bronze lacks.

    Where offsets have no gap nothing can be lost. A gap may be a transaction's marker or a compacted record, so there Kafka's own
    records (read_committed) are counted.
    """
    gaps = [span for span in spans if span[0] == topic.topic_id and span[3] - span[2] + 1 != span[4]]
    if not gaps:
        return 0
    # A batch read of Kafka wants a range for every partition; an empty one for those that have no gap.
    first = dict.fromkeys(topic.partitions, 0) | {gap[1]: gap[2] for gap in gaps}
    last = dict.fromkeys(topic.partitions, 0) | {gap[1]: gap[3] + 1 for gap in gaps}
    held = (
        spark.read.format("kafka")
        .options(**kafka.spark_options(connection))
        .option("startingOffsets", json.dumps({topic.topic: first}))
        .option("endingOffsets", json.dumps({topic.topic: last}))
        .option("failOnDataLoss", "false")
        .load()
        .groupBy("partition")
        .count()
        .collect()
    )
    in_kafka = {row["partition"]: row["count"] for row in held}
    return sum(max(0, in_kafka.get(partition, 0) - rows) for _, partition, _, _, rows in gaps)


def behind(verified_until: Mapping[str, int]) -> Column:
    """The rows, of any table with coordinates, that no earlier look found in order."""
    if not verified_until:
        return F.lit(True)
    exact = F.lit(True)
    known = sorted((*key.rsplit("/", 1), offset) for key, offset in verified_until.items())
    for topic_id, partition, offset in known:
        exact = exact & ~((F.col("topic_id") == topic_id) & (F.col("partition") == int(partition)) & (F.col("offset") < offset))
    # The same more loosely, in terms that file statistics can answer: Delta then opens the newest files alone.
    topics, partitions = sorted({topic_id for topic_id, _, _ in known}), sorted({int(partition) for _, partition, _ in known})
    unknown = ~F.col("topic_id").isin(topics) | ~F.col("partition").isin(partitions)
    return (unknown | (F.col("offset") >= min(offset for _, _, offset in known))) & exact


def _spans(arrived: DataFrame, placed: DataFrame) -> list[Row]:
    """Per side and partition: first and last offset, rows, and the sum of the coordinates' hashes (exact, as a decimal)."""
    sides = arrived.withColumn("side", F.lit("arrived")).unionByName(placed.withColumn("side", F.lit("placed")))
    return (
        sides.groupBy("side", "topic_id", "partition")
        .agg(
            F.min("offset").alias("first"),
            F.max("offset").alias("last"),
            F.count(F.lit(1)).alias("rows"),
            F.sum(F.xxhash64(*COORDINATES).cast("decimal(20,0)")).alias("hashes"),
        )
        .collect()
    )


def _key(row: Row) -> str:
    return f"{row['topic_id']}/{row['partition']}"


def _digest(spans: list[Row]) -> tuple[int, int]:
    return sum(row["rows"] for row in spans), int(sum(row["hashes"] for row in spans))


def _count_unaccounted(arrived: DataFrame, placed: DataFrame) -> int:
    """Records of bronze in none or in several of the tables, and rows of these that bronze lacks."""
    sides = arrived.select(*COORDINATES, F.lit(1).alias("in_bronze"), F.lit(0).alias("in_tables")).unionByName(
        placed.select(*COORDINATES, F.lit(0).alias("in_bronze"), F.lit(1).alias("in_tables"))
    )
    counted = sides.groupBy(*COORDINATES).agg(F.sum("in_bronze").alias("in_bronze"), F.sum("in_tables").alias("in_tables"))
    return counted.where((F.col("in_bronze") != 1) | (F.col("in_tables") != 1)).count()
