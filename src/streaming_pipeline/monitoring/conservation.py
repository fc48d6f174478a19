"""Is every record accounted for? Bronze = silver + duplicates + open quarantine, by coordinates, and Kafka = bronze."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce

from pyspark.sql import Column, DataFrame, Row, SparkSession
from pyspark.sql import functions as F

from streaming_pipeline.bronze.losses import count_in_kafka
from streaming_pipeline.core import tables
from streaming_pipeline.core.at_once import at_once
from streaming_pipeline.core.coordinates import KEY, behind, count_by_partition, lies_in, lies_within
from streaming_pipeline.core.settings import KafkaSettings, Settings
from streaming_pipeline.kafka import connection as kafka

Offsets = dict[str, int]
"""`topic_id/partition` → the next offset that is not looked at yet."""

_MOST_COUNTED = 1_000
"""Of so many offsets that wait it is told which are records; behind a stream that never pauses there are always more."""


@dataclass(frozen=True)
class Span:
    """The bronze records of one partition that a look has read: `rows` of them from `first`, where the look before ended, to `last`."""

    topic_id: str
    partition: int
    first: int
    last: int
    rows: int
    offset_sum: int
    """Of the offsets of these rows."""

    @property
    def key(self) -> str:
        """The partition, as `Offsets` name it."""
        return f"{self.topic_id}/{self.partition}"

    @property
    def has_gap(self) -> bool:
        """Whether offsets are missing: lost records, or a transaction's marker, or what compaction took.

        Where a record is there twice, the count alone could hide that another is missing.
        """
        is_whole = self.last - self.first + 1 == self.rows and 2 * self.offset_sum == (self.first + self.last) * self.rows
        return not is_whole


@dataclass(frozen=True)
class Conservation:
    """What a look at the tables found: records that are not in exactly one table, and what of bronze was looked at."""

    unaccounted: int
    spans: tuple[Span, ...] = ()


def count_rows(spark: SparkSession, settings: Settings) -> dict[str, int]:
    """How many rows each table of the law has, as Delta's statistics say, and how much of quarantine is open."""
    names = ("bronze_events", *tables.PLACES)
    resolved, *counts = at_once(
        spark.table(settings.table("quarantined_events")).where("resolved_at IS NOT NULL").count,
        *(partial(tables.row_count, spark, settings, name) for name in names),
    )
    totals = dict(zip(names, counts, strict=True))
    return {**totals, "open_quarantine": totals["quarantined_events"] - resolved}


def check(spark: SparkSession, settings: Settings, verified_until: Mapping[str, int], totals: Mapping[str, int]) -> Conservation:
    """Compare the tables: whole by `totals` of `count_rows`, and record by record what lies behind `verified_until`.

    The records behind are compared, partition by partition, by count and by the sum of their offsets' hashes, one narrow pass over
    each table; only where these differ are coordinates joined to say how many records are at fault.
    """
    table = lambda name: spark.table(settings.table(name))  # noqa: E731
    open_quarantine = table("quarantined_events").where("resolved_at IS NULL")
    surplus = totals["bronze_events"] - totals["silver_events"] - totals["duplicate_events"] - totals["open_quarantine"]

    new = behind(verified_until)
    arrived = table("bronze_events").where(new).select(*KEY)
    placed = [frame.where(new).select(*KEY) for frame in (table("silver_events"), table("duplicate_events"), open_quarantine)]
    rows = _extents([arrived, *placed])
    in_bronze = [row for row in rows if row["frame"] == 0]
    spans = [Span(row["topic_id"], row["partition"], row["first"], row["last"], row["rows"], _sum(row, "offsets")) for row in in_bronze]
    balanced = surplus == 0 and _digest(in_bronze) == _digest([row for row in rows if row["frame"] > 0])
    if balanced and not _has_repetitions(arrived, [span for span in spans if span.has_gap]):
        unaccounted = 0
    else:
        unaccounted = max(abs(surplus), _count_unaccounted(arrived, reduce(DataFrame.unionByName, placed)))
    return Conservation(
        unaccounted=unaccounted,
        spans=tuple(replace(span, first=min(span.first, verified_until.get(span.key, span.first))) for span in spans),
    )


def lost_records(
    spark: SparkSession, settings: Settings, topic: kafka.TopicOffsets, spans: Iterable[Span], passed: Mapping[str, tuple[int, int]]
) -> dict[str, int]:
    """How many records Kafka holds and bronze lacks, by `topic_id/partition`: within each span that has a gap, and in the ranges that
    bronze's stream has `passed` behind the last record that bronze holds.

    A gap may be a transaction's marker or a compacted record, so Kafka's own records (read_committed) are counted. What expired
    since, and gaps in a topic that was deleted, cannot be asked for any more.
    """
    topic_id = topic.info.topic_id
    asked = {s.partition: (s.first, s.last + 1) for s in spans if s.has_gap and s.topic_id == topic_id}
    for partition in topic.ends:
        if (found := passed.get(f"{topic_id}/{partition}")) is not None:
            asked[partition] = (asked.get(partition, found)[0], found[1])
    ranges = {p: (max(first, topic.beginnings.get(p, 0)), end) for p, (first, end) in asked.items()}
    ranges = {partition: (first, end) for partition, (first, end) in ranges.items() if first < end}
    if not ranges:
        return {}
    in_kafka = count_in_kafka(spark, settings.kafka, topic.info, ranges)
    in_bronze = spark.table(settings.table("bronze_events")).where(lies_in(topic_id, ranges)).select(*KEY)
    # Distinct, so that a record that is there twice stands in for no other.
    held = count_by_partition(in_bronze.distinct())
    return {f"{topic_id}/{p}": max(0, in_kafka.get(p, 0) - held.get(p, 0)) for p in ranges}


def waiting_records(spark: SparkSession, connection: KafkaSettings, topic: kafka.TopicOffsets, read_until: Mapping[str, int]) -> int:
    """How many records of the topic bronze has not read yet.

    Offsets alone do not say: the last ones of a partition may be markers and aborted records, which never arrive. So, unless there
    are so many that these make no difference, the records themselves are counted.
    """
    begin = {p: max(first, read_until.get(f"{topic.info.topic_id}/{p}", first)) for p, first in topic.beginnings.items()}
    waiting = {p: (begin[p], end) for p, end in topic.ends.items() if end > begin[p]}
    offsets = sum(end - first for first, end in waiting.values())
    if not waiting or offsets > _MOST_COUNTED:
        return offsets
    return sum(count_in_kafka(spark, connection, topic.info, waiting).values())


def _extents(frames: Sequence[DataFrame]) -> list[Row]:
    """Per frame and partition: first and last offset, rows, and the sums of the offsets and of their hashes.

    Of each the halves are summed apart: in whole numbers, which hold those of two milliards of rows exactly, and cost a fraction of
    what decimals do.
    """

    def halves(value: Column, name: str) -> tuple[Column, Column]:
        return (
            F.sum(F.shiftright(value, 32)).alias(f"high_{name}"),
            F.sum(value.bitwiseAND(F.lit(0xFFFFFFFF))).alias(f"low_{name}"),
        )

    hashed = F.xxhash64("offset")
    # Each is summed up by itself: Spark compiles the way from file to sum as one then.
    summed = [
        frame.groupBy("topic_id", "partition").agg(
            F.lit(place).alias("frame"),
            F.min("offset").alias("first"),
            F.max("offset").alias("last"),
            F.count(F.lit(1)).alias("rows"),
            *halves(F.col("offset"), "offsets"),
            *halves(hashed, "hashes"),
        )
        for place, frame in enumerate(frames)
    ]
    return reduce(DataFrame.unionByName, summed).collect()


def _sum(extent: Row, name: str) -> int:
    return (extent[f"high_{name}"] << 32) + extent[f"low_{name}"]


def _digest(extents: Iterable[Row]) -> dict[tuple[str, int], tuple[int, int]]:
    """Partition → rows, and the sum of the hashes of their offsets."""
    found: dict[tuple[str, int], tuple[int, int]] = {}
    for row in extents:
        rows, hashes = found.get(partition := (row["topic_id"], row["partition"]), (0, 0))
        found[partition] = rows + row["rows"], hashes + _sum(row, "hashes")
    return found


def _has_repetitions(arrived: DataFrame, spans: Sequence[Span]) -> bool:
    """Whether bronze holds a record of these spans twice; then the other tables may hold it twice as well, and all would balance."""
    if not spans:
        return False
    within = lies_within((span.topic_id, span.partition, span.first, span.last) for span in spans)
    return not arrived.where(within).groupBy(*KEY).count().where("count > 1").isEmpty()


def _count_unaccounted(arrived: DataFrame, placed: DataFrame) -> int:
    """Records of bronze in none or in several of the tables, and rows of these that bronze lacks."""
    sides = arrived.select(*KEY, F.lit(1).alias("in_bronze"), F.lit(0).alias("in_tables")).unionByName(
        placed.select(*KEY, F.lit(0).alias("in_bronze"), F.lit(1).alias("in_tables"))
    )
    counted = sides.groupBy(*KEY).agg(F.sum("in_bronze").alias("in_bronze"), F.sum("in_tables").alias("in_tables"))
    return counted.where((F.col("in_bronze") != 1) | (F.col("in_tables") != 1)).count()
