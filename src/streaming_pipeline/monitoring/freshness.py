"""How fresh and how late are events? A look at the silver rows that are new."""

from dataclasses import dataclass
from datetime import datetime

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from streaming_pipeline.contract import Contract


@dataclass(frozen=True)
class Freshness:
    """Counts and quantiles over new silver rows; times are UTC, quantiles None where there are no rows."""

    records: int
    late_events: int
    latest_event_time: datetime | None
    lateness_seconds: tuple[float, float, float] | None
    """50, 95 and 99 % quantiles, each within 0.1 % of its rank."""


def lateness_seconds(contract: Contract) -> Column:
    """kafka_timestamp - event time; negative for an event dated ahead of Kafka's clock."""
    return (F.unix_micros("kafka_timestamp") - F.unix_micros(f"`{contract.event_time_field}`")) / 1e6


def freshness(silver: DataFrame, contract: Contract, late_after_seconds: int) -> Freshness:
    """One pass over silver rows: how many, how many late, the newest event time, and the quantiles of lateness."""
    late = lateness_seconds(contract)
    row = silver.agg(
        F.count(F.lit(1)).alias("records"),
        F.count(F.when(late > late_after_seconds, 1)).alias("late_events"),
        # An event dated ahead of its arrival would hide for hours that nothing arrives any more.
        F.max(F.least(F.col(f"`{contract.event_time_field}`"), F.col("kafka_timestamp"))).alias("latest"),
        F.percentile_approx(late, [0.5, 0.95, 0.99], 1000).alias("quantiles"),
    ).first()
    return Freshness(row["records"], row["late_events"], row["latest"], tuple(row["quantiles"]) if row["quantiles"] else None)


def health(
    *,
    unaccounted: int,
    lost: int | None,
    freshness_seconds: float | None,
    freshness_limit_seconds: int,
    silent_seconds: float | None = None,
    silence_allowed_seconds: float | None = None,
) -> tuple[str, str | None]:
    """(status, reason): Unhealthy if records are missing or events stay out, Unknown if there never was one."""
    if unaccounted:
        return "Unhealthy", f"{unaccounted} records are not accounted for"
    if lost:
        return "Unhealthy", f"{lost} records that Kafka holds are not in bronze"
    if freshness_seconds is None:
        return "Unknown", "no event has arrived yet"
    if freshness_seconds > freshness_limit_seconds:
        return "Unhealthy", f"the newest event is {freshness_seconds:.0f} s old, the limit is {freshness_limit_seconds} s"
    if silent_seconds is not None and silence_allowed_seconds is not None and silent_seconds > silence_allowed_seconds:
        return (
            "Unhealthy",
            f"nothing has arrived for {silent_seconds:.0f} s; at this time of day {silence_allowed_seconds:.0f} s are unusual",
        )
    return "Healthy", None
