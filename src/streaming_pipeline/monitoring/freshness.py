"""How fresh and how late are the silver rows that are new?"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from streaming_pipeline.core.contract import Contract
from streaming_pipeline.core.wording import duration, plural

_LEAST_SECONDS = 0.001
_WIDTH = 0.01
"""Of a bucket of lateness: the largest value in it is so much larger than the least."""


@dataclass(frozen=True)
class Freshness:
    """Counts and quantiles over new silver rows; times are UTC, quantiles None where there are no rows."""

    records: int
    late_events: int
    latest_event_time: datetime | None
    lateness_seconds: tuple[float, float, float] | None
    """50, 95 and 99 % quantiles, each within 1 % of the value, or a millisecond."""


def lateness_seconds(contract: Contract) -> Column:
    """kafka_timestamp - event time; negative for an event dated ahead of Kafka's clock."""
    return (F.unix_micros("kafka_timestamp") - F.unix_micros(f"`{contract.event_time_field}`")) / 1e6


def freshness(silver: DataFrame, contract: Contract, late_after_seconds: int) -> Freshness:
    """One pass over silver rows: how many, how many late, the newest event time, and the quantiles of lateness.

    Quantiles come from counts in buckets of logarithmic width (DDSketch: Masson, Rim and Lee 2019), a third of the time of Spark's own.
    """
    late = lateness_seconds(contract)
    steps = F.ceil(F.log(F.abs(late) / _LEAST_SECONDS) / math.log(1 + _WIDTH))
    bucket = F.when(F.abs(late) > _LEAST_SECONDS, F.signum(late).cast("int") * steps).otherwise(0)
    rows = silver.groupBy(bucket.alias("bucket")).agg(
        F.count(F.lit(1)).alias("records"),
        F.count_if(late > late_after_seconds).alias("late_events"),
        # An event dated ahead of its arrival would hide for hours that nothing arrives any more.
        F.max(F.least(F.col(f"`{contract.event_time_field}`"), F.col("kafka_timestamp"))).alias("latest"),
        F.avg(late).alias("lateness"),
    )
    found = rows.orderBy("bucket").collect()
    if not found:
        return Freshness(0, 0, None, None)
    records, late_events, latest, lateness = zip(
        *((r["records"], r["late_events"], r["latest"], r["lateness"]) for r in found), strict=True
    )
    return Freshness(sum(records), sum(late_events), max(latest), _quantiles(records, lateness, (0.5, 0.95, 0.99)))


def _quantiles(records: Sequence[int], values: Sequence[float], shares: Sequence[float]) -> tuple[float, ...]:
    """Quantiles of so many records of each of these ascending values."""
    upto = np.cumsum(records)
    places = np.searchsorted(upto, np.ceil(np.array(shares) * upto[-1]))
    return tuple(float(values[place]) for place in places)


def problems(
    *,
    unaccounted: int,
    lost: int | None,
    freshness_seconds: float | None,
    freshness_limit_seconds: int,
    silent_seconds: float | None = None,
    silence_allowed_seconds: float | None = None,
) -> dict[str, str]:
    """Kind of finding → a sentence, for all that is wrong with the records and their freshness."""
    found = {}
    if unaccounted:
        found["records_unaccounted"] = f"{plural(unaccounted, 'record is', 'records are')} not accounted for"
    if lost:
        found["records_lost"] = f"Kafka holds {plural(lost, 'record')} that bronze lacks"
    if freshness_seconds is not None and freshness_seconds > freshness_limit_seconds:
        found["stale"] = f"the newest event is {duration(freshness_seconds)} old, the limit is {duration(freshness_limit_seconds)}"
    elif silent_seconds is not None and silence_allowed_seconds is not None and silent_seconds > silence_allowed_seconds:
        allowed = duration(silence_allowed_seconds)
        found["stale"] = f"nothing has arrived for {duration(silent_seconds)}; more than {allowed} is unusual at this time of day"
    return found


def health(wrong: Mapping[str, str], has_events: bool, rejection: str = "") -> tuple[str, str | None]:
    """(status, reason): Unhealthy if something is wrong, Unknown if there never was an event.

    `wrong` has the problems by kind; `rejection` says that records came and were rejected.
    """
    if wrong:
        return "Unhealthy", "; ".join(wrong.values())
    return ("Healthy", None) if has_events else ("Unknown", rejection or "no event has arrived yet")
