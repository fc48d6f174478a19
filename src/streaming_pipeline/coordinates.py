"""Coordinates (topic_id, partition, offset) tell one Kafka record from every other; by them a batch that is run again adds nothing."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce

from pyspark.sql import Column, DataFrame, Row
from pyspark.sql import functions as F

COORDINATES = ["topic_id", "partition", "offset"]


@dataclass(frozen=True)
class OffsetRanges:
    """The offsets that a batch spans: (topic_id, partition, first, last) for each partition; none for an empty batch."""

    ranges: tuple[tuple[str, int, int, int], ...]

    @classmethod
    def from_rows(cls, rows: Iterable[Row]) -> "OffsetRanges":
        """From rows with `topic_id`, `partition`, `first`, `last`."""
        return cls(tuple(sorted((row["topic_id"], row["partition"], row["first"], row["last"]) for row in rows)))

    def cover(self) -> Column:
        """Condition on the rows of any table with coordinates; its bounds are literals, so that Delta skips files by statistics."""
        conditions = [
            (F.col("topic_id") == topic_id) & (F.col("partition") == partition) & F.col("offset").between(first, last)
            for topic_id, partition, first, last in self.ranges
        ]
        return reduce(lambda left, right: left | right, conditions, F.lit(False))


def offset_ranges(rows: DataFrame) -> OffsetRanges:
    """Look once at the coordinates of `rows`."""
    spans = rows.groupBy("topic_id", "partition").agg(F.min("offset").alias("first"), F.max("offset").alias("last"))
    return OffsetRanges.from_rows(spans.collect())


def held(table: DataFrame, ranges: OffsetRanges) -> DataFrame:
    """The coordinates within `ranges` that `table` holds."""
    return table.where(ranges.cover()).select(*COORDINATES)


def leave_out(rows: DataFrame, coordinates: DataFrame) -> DataFrame:
    """The `rows` whose coordinates are none of `coordinates`."""
    return rows.join(coordinates, on=COORDINATES, how="left_anti").select(*rows.columns)


def leave_out_any(rows: DataFrame, coordinates: DataFrame) -> DataFrame:
    """The same, for `coordinates` of which there are none unless a batch is run again: Delta's statistics say so, and no join is made."""
    return rows if coordinates.isEmpty() else leave_out(rows, coordinates)
