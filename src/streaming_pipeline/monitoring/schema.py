"""Do payloads still have the fields that the contract knows? Added, removed and retyped fields."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from streaming_pipeline.monitoring.baseline import MIN_RECORDS
from streaming_pipeline.monitoring.drift import Drift
from streaming_pipeline.monitoring.profile import ALL
from streaming_pipeline.monitoring.windows import number_of, window_of

MOST = 50
"""So many names are told at most: a producer that makes names of values must not fill the log."""
MIN_ADDED = 3
"""So many records make a new field; fewer are somebody's slip."""
MIN_REJECTED = 20
SHARE, TIMES_USUAL = 10.0, 5.0
"""A field is removed or retyped where so many per cent of a window's records are rejected for it, and so many times the usual."""
_METRIC_OF = {"missing": "schema_removed", "wrong_type": "schema_retyped"}


@dataclass(frozen=True)
class UnknownField:
    """A field that the contract lacks: how many records have it, and when the first of them came."""

    name: str
    records: int
    first_at: datetime


@dataclass(eq=False)
class Known:
    """What is remembered of payloads: records of each field that the contract lacks, and how often a reason to reject is usual."""

    fields: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)
    records: int = 0

    def to_json(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return dict(vars(self))


def unknown_fields(bronze: DataFrame) -> list[UnknownField]:
    """The fields of bronze rows that the contract lacks, the most frequent first."""
    names = bronze.where("unknown_fields IS NOT NULL").select(F.explode("unknown_fields").alias("name"), "kafka_timestamp")
    counted = names.groupBy("name").agg(F.count(F.lit(1)).alias("records"), F.min("kafka_timestamp").alias("first_at"))
    return [UnknownField(*row) for row in counted.orderBy(F.col("records").desc(), "name").limit(MOST).collect()]


def rejections(quarantined: DataFrame, window_minutes: int) -> dict[tuple[int, str], int]:
    """(window of arrival, reason) → rejected records; the reason * stands for any."""
    window = window_of("kafka_timestamp", window_minutes).alias("window")
    reasons = quarantined.select(window, F.explode(F.array_append(F.array_distinct("reasons"), F.lit(ALL))).alias("reason"))
    return {(row["window"], row["reason"]): row["count"] for row in reasons.groupBy("window", "reason").count().collect()}


def changes(
    known: Known, unknown: Sequence[UnknownField], rejected: Mapping[tuple[int, str], int], valid: Mapping[int, int], window_minutes: int
) -> list[Drift]:
    """What changed in the new records, of which `valid` has the number of valid ones by window of arrival; `known` learns it."""
    found = []
    total = sum(valid.values()) + sum(count for (_, reason), count in rejected.items() if reason == ALL)
    for one in unknown:
        before = known.fields.get(one.name, 0)
        known.fields[one.name] = before + one.records
        if before < MIN_ADDED <= known.fields[one.name]:
            window = number_of(one.first_at, window_minutes)
            share = 100 * min(1.0, one.records / max(total, one.records))
            found.append(Drift(window, ALL, one.name, "contract", "schema_added", share, None, 0.0, one.records, 0, True, "warning"))
    for (window, reason), count in sorted(rejected.items()):
        kind, _, name = reason.partition(":")
        if kind not in _METRIC_OF or not name:
            continue
        records = valid.get(window, 0) + rejected[window, ALL]
        share = 100 * count / records
        usual = 100 * known.reasons.get(reason, 0) / max(known.records, 1)
        if records >= MIN_RECORDS and count >= MIN_REJECTED and share >= max(SHARE, TIMES_USUAL * usual):
            metric = _METRIC_OF[kind]
            found.append(Drift(window, ALL, name, "contract", metric, share, None, SHARE, records, known.records, True, "critical"))
        else:
            known.reasons[reason] = known.reasons.get(reason, 0) + count
    known.records += total
    return found
