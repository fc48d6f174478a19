"""Is every record accounted for? Bronze = silver + duplicates + open quarantine, by coordinates, and Kafka = bronze."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from operator import and_, or_

from pyspark.sql import Column, DataFrame, Row, SparkSession
from pyspark.sql import functions as F

from streaming_pipeline import kafka, tables
from streaming_pipeline.at_once import at_once
from streaming_pipeline.coordinates import KEY, count_by_partition, lies_in
from streaming_pipeline.settings import KafkaSettings, Settings

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

    @property
    def key(self) -> str:
        """The partition, as `Offsets` name it."""
        return f"{self.topic_id}/{self.partition}"

    @property
    def has_gap(self) -> bool:
        """Whether offsets are missing: lost records, or a transaction's marker, or what compaction took."""
        return self.last - self.first + 1 != self.rows


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
    balanced = surplus == 0 and _digest(in_bronze) == _digest([row for row in rows if row["frame"] > 0])
    spans = [Span(row["topic_id"], row["partition"], row["first"], row["last"], row["rows"]) for row in in_bronze]
    return Conservation(
        unaccounted=0 if balanced else max(abs(surplus), _count_unaccounted(arrived, reduce(DataFrame.unionByName, placed))),
        spans=tuple(replace(span, first=min(span.first, verified_until.get(span.key, span.first))) for span in spans),
    )


def lost_records(spark: SparkSession, settings: Settings, topic: kafka.TopicOffsets, spans: Iterable[Span]) -> dict[str, int]:
    """How many records Kafka holds within each span that has a gap and bronze lacks, by `topic_id/partition`.

    A gap may be a transaction's marker or a compacted record, so Kafka's own records (read_committed) are counted. What expired
    since, and gaps in a topic that was deleted, cannot be asked for any more.
    """
    gaps = {s.partition: s for s in spans if s.has_gap and s.topic_id == topic.info.topic_id}
    ranges = {p: (max(span.first, topic.beginnings.get(p, 0)), span.last + 1) for p, span in gaps.items()}
    ranges = {partition: (first, end) for partition, (first, end) in ranges.items() if first < end}
    if not ranges:
        return {}
    in_kafka = _held(spark, settings.kafka, topic.info, ranges)
    in_bronze = count_by_partition(spark.table(settings.table("bronze_events")).where(lies_in(topic.info.topic_id, ranges)))
    return {gaps[p].key: max(0, in_kafka.get(p, 0) - in_bronze.get(p, 0)) for p in ranges}


def waiting_records(spark: SparkSession, connection: KafkaSettings, topic: kafka.TopicOffsets, read_until: Mapping[str, int]) -> int:
    """How many records of the topic bronze has not read yet.

    Offsets alone do not say: the last ones of a partition may be markers and aborted records, which never arrive. So, unless there
    are so many that these make no difference, the records themselves are counted.
    """
    begin = {p: max(first, read_until.get(f"{topic.info.topic_id}/{p}", first)) for p, first in topic.beginnings.items()}
    behind = {p: (begin[p], end) for p, end in topic.ends.items() if end > begin[p]}
    offsets = sum(end - first for first, end in behind.values())
    if not behind or offsets > _MOST_COUNTED:
        return offsets
    return sum(_held(spark, connection, topic.info, behind).values())


def _held(spark: SparkSession, connection: KafkaSettings, topic: kafka.TopicInfo, ranges: Mapping[int, tuple[int, int]]) -> dict[int, int]:
    """How many records (read_committed) Kafka holds from the first of these offsets to before the second, by partition."""
    source = spark.read.format("kafka").options(**kafka.range_options(connection, topic, ranges))
    return count_by_partition(source.option("failOnDataLoss", "false").load())


def behind(until: Mapping[str, int]) -> Column:
    """The rows, of any table with coordinates, that lie behind these offsets, or in a partition that is none of these.

    In comparisons alone, so that Delta opens only the files whose statistics allow such a row.
    """
    if not until:
        return F.lit(True)
    topics: dict[str, dict[int, int]] = {}
    for key, offset in until.items():
        topic_id, partition = key.rsplit("/", 1)
        topics.setdefault(topic_id, {})[int(partition)] = offset
    new = [reduce(and_, [F.col("topic_id") != topic_id for topic_id in topics])]
    for topic_id, offsets in topics.items():
        is_new_partition = reduce(and_, [F.col("partition") != partition for partition in offsets])
        lies_behind = [(F.col("partition") == partition) & (F.col("offset") >= offset) for partition, offset in offsets.items()]
        new.append((F.col("topic_id") == topic_id) & reduce(or_, [is_new_partition, *lies_behind]))
    return reduce(or_, new)


def _extents(frames: Sequence[DataFrame]) -> list[Row]:
    """Per frame and partition: first and last offset, rows, and the sums of both halves of the offsets' hashes: in whole numbers, which
    hold those of two milliards of rows exactly, and cost a fraction of what decimals do."""
    hashed = F.xxhash64("offset")
    # Each is summed up by itself: Spark compiles the way from file to sum as one then.
    summed = [
        frame.groupBy("topic_id", "partition").agg(
            F.lit(place).alias("frame"),
            F.min("offset").alias("first"),
            F.max("offset").alias("last"),
            F.count(F.lit(1)).alias("rows"),
            F.sum(F.shiftright(hashed, 32)).alias("high_hashes"),
            F.sum(hashed.bitwiseAND(F.lit(0xFFFFFFFF))).alias("low_hashes"),
        )
        for place, frame in enumerate(frames)
    ]
    return reduce(DataFrame.unionByName, summed).collect()


def _digest(extents: Iterable[Row]) -> dict[tuple[str, int], tuple[int, int]]:
    """Partition → rows, and the sum of the hashes of their offsets."""
    found: dict[tuple[str, int], tuple[int, int]] = {}
    for row in extents:
        rows, hashes = found.get(partition := (row["topic_id"], row["partition"]), (0, 0))
        found[partition] = rows + row["rows"], hashes + (row["high_hashes"] << 32) + row["low_hashes"]
    return found


def _count_unaccounted(arrived: DataFrame, placed: DataFrame) -> int:
    """Records of bronze in none or in several of the tables, and rows of these that bronze lacks."""
    sides = arrived.select(*KEY, F.lit(1).alias("in_bronze"), F.lit(0).alias("in_tables")).unionByName(
        placed.select(*KEY, F.lit(0).alias("in_bronze"), F.lit(1).alias("in_tables"))
    )
    counted = sides.groupBy(*KEY).agg(F.sum("in_bronze").alias("in_bronze"), F.sum("in_tables").alias("in_tables"))
    return counted.where((F.col("in_bronze") != 1) | (F.col("in_tables") != 1)).count()
