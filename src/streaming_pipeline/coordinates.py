"""The key of a record (topic_id, partition, offset) tells it from every other; by it a batch that is run again adds nothing."""

from functools import reduce
from operator import or_

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

KEY = ["topic_id", "partition", "offset"]


def covering(batch: DataFrame) -> Column | None:
    """Looks once at the keys of a batch → a condition on the rows of any table with keys: they lie within the offsets that the batch
    spans. None for an empty batch.

    Its bounds are literals, so that Delta skips files by statistics.
    """
    spans = batch.groupBy("topic_id", "partition").agg(F.min("offset").alias("first"), F.max("offset").alias("last")).collect()
    within = [
        (F.col("topic_id") == span["topic_id"])
        & (F.col("partition") == span["partition"])
        & F.col("offset").between(span["first"], span["last"])
        for span in sorted(spans)
    ]
    return reduce(or_, within) if within else None


def leave_out(rows: DataFrame, keys: DataFrame) -> DataFrame:
    """The `rows` whose key is none of `keys`."""
    return rows.join(keys.select(*KEY), on=KEY, how="left_anti").select(*rows.columns)


def leave_out_any(rows: DataFrame, keys: DataFrame) -> DataFrame:
    """The same, for `keys` of which there are none unless a batch is run again: Delta's statistics say so, and no join is made."""
    return rows if keys.isEmpty() else leave_out(rows, keys)
