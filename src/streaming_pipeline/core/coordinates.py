"""The key of a record (topic_id, partition, offset) tells it from every other; by it a batch that is run again adds nothing."""

from collections.abc import Iterable, Mapping
from functools import reduce
from operator import and_, or_

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

KEY = ["topic_id", "partition", "offset"]


def covering(batch: DataFrame) -> Column | None:
    """Looks once at the keys of a batch → a condition on the rows of any table with keys: they lie within the offsets that the batch
    spans. None for an empty batch.

    Its bounds are literals, so that Delta skips files by statistics.
    """
    spans = batch.groupBy("topic_id", "partition").agg(F.min("offset").alias("first"), F.max("offset").alias("last")).collect()
    return lies_within(map(tuple, sorted(spans))) if spans else None


def lies_within(spans: Iterable[tuple[str, int, int, int]]) -> Column:
    """Whether a row's key lies in one of the spans: (topic_id, partition, first offset, last offset)."""
    return reduce(
        or_,
        [
            (F.col("topic_id") == topic_id) & (F.col("partition") == partition) & F.col("offset").between(first, last)
            for topic_id, partition, first, last in spans
        ],
    )


def lies_in(topic_id: str, ranges: Mapping[int, tuple[int, int]]) -> Column:
    """Whether a row's key lies in one of the ranges of this topic: partition → first offset, and the one behind the last."""
    return lies_within((topic_id, partition, first, end - 1) for partition, (first, end) in ranges.items())


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


def count_by_partition(records: DataFrame) -> dict[int, int]:
    """How many rows there are of each partition that has any."""
    return {row["partition"]: row["count"] for row in records.groupBy("partition").count().collect()}


def leave_out(rows: DataFrame, keys: DataFrame) -> DataFrame:
    """The `rows` whose key is none of `keys`."""
    return rows.join(keys.select(*KEY), on=KEY, how="left_anti").select(*rows.columns)


def leave_out_any(rows: DataFrame, keys: DataFrame) -> DataFrame:
    """The same, for `keys` of which there are none unless a batch is run again: Delta's statistics say so, and no join is made."""
    return rows if keys.isEmpty() else leave_out(rows, keys)
