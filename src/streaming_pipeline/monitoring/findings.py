"""What a look found, as rows of its tables.

Every row carries the look's number. The state goes first and the row of `monitor_logs` last; what a look wrote that did not come to it is
taken away by the next one, which has the same number.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial, reduce
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from streaming_pipeline.core import tables
from streaming_pipeline.core.at_once import at_once
from streaming_pipeline.core.settings import Settings
from streaming_pipeline.monitoring import degradation
from streaming_pipeline.monitoring import state as states
from streaming_pipeline.monitoring.arrivals import Anomaly
from streaming_pipeline.monitoring.baseline import SILVER, Baseline
from streaming_pipeline.monitoring.degradation import Worse
from streaming_pipeline.monitoring.drift import Drift, kind_of
from streaming_pipeline.monitoring.incidents import incidents
from streaming_pipeline.monitoring.profile import ALL, ColumnProfile, Profiles
from streaming_pipeline.monitoring.windows import start_of

_QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
_QUANTILE_NAMES = [f"p{100 * q:02.0f}" for q in _QUANTILES]


@dataclass(frozen=True)
class MonitoringRun:
    """Which look it is, and when."""

    number: int
    run_id: str
    now: datetime
    window_minutes: int

    def of_window(self, window: int, minutes: int | None = None, table_name: str = SILVER) -> dict[str, Any]:
        """What every row about a window of a table begins with."""
        begin, end = (start_of(number, minutes or self.window_minutes) for number in (window, window + 1))
        return {**self.of_table(table_name), "window_start": begin, "window_end": end}

    def of_table(self, table_name: str = SILVER) -> dict[str, Any]:
        """What every row about a table begins with."""
        return {"look": self.number, "run_id": self.run_id, "table_name": table_name}


@dataclass(frozen=True)
class Found:
    """What a look has to write besides its state."""

    profiles: Profiles
    judged: list[Drift]
    anomalies: list[Anomaly]
    outside: DataFrame | None
    baseline: Baseline | None
    """The one in force."""
    is_new: bool
    """Whether this look made it."""


@dataclass(frozen=True)
class Written:
    """What the rows of a monitoring run report, by kind: the rows themselves (`findings`), and what happened (`incidents`)."""

    findings: dict[str, int] = field(default_factory=dict)
    incidents: dict[str, int] = field(default_factory=dict)


def write(spark: SparkSession, settings: Settings, look: MonitoringRun, state: states.State, found: Found) -> Written:
    """Write the rows of this monitoring run; returns what they report."""
    baseline_id = found.baseline.baseline_id if found.baseline else None
    # First: by it the next look knows that there is something to take away, should this one not come to its end.
    tables.append_rows(spark, settings, tables.MONITOR_STATE, states.rows(state, look.number, look.now))
    rows = {
        tables.BASELINES: [found.baseline.to_row(look.number, look.run_id, look.now)] if found.is_new else [],
        tables.PROFILE_METRICS: [_profile_row(one, baseline_id, look) for one in found.profiles.values()],
        tables.DRIFT_METRICS: [_drift_row(one, baseline_id, look) for one in found.judged],
    }
    appends = [partial(tables.append_rows, spark, settings, table, of_table) for table, of_table in rows.items() if of_table]
    outliers, *_ = at_once(lambda: _append_anomalies(spark, settings, look, found), *appends)
    findings = Counter(one.anomaly_type for one in found.anomalies)
    findings.update(kind_of(one.table_name, one.metric) for one in found.judged if one.is_drift)
    findings["outlier"] += outliers
    happened = Counter(incidents(found.anomalies, found.judged))
    happened["outlier"] += _strange_events(spark, settings, look) if outliers else 0
    return Written(*({kind: count for kind, count in of.items() if count} for of in (findings, happened)))


def _strange_events(spark: SparkSession, settings: Settings, look: MonitoringRun) -> int:
    """How many events this monitoring run found strange: each once, however many detectors and columns say so."""
    rows = spark.table(settings.table(tables.ANOMALY_LOGS.name)).where(F.col("look") == look.number)
    return rows.agg(F.count_distinct("event_id")).first()[0]


def write_worse(spark: SparkSession, settings: Settings, look: MonitoringRun, worse: Sequence[Worse], began: datetime) -> None:
    """Write the figures of the pipeline that are worse than usual in this look, which tells of what came since `began`."""
    rows = [
        {
            **look.of_table(),
            "detector": "robust_zscore",
            "anomaly_type": "degradation",
            "series": one.name,
            "slice": ALL,
            "event_time": look.now,
            "window_start": began,
            "window_end": look.now,
            "observed": one.observed,
            "expected": one.usual,
            "score": one.score,
            "threshold": degradation.THRESHOLD,
            "severity": "warning",
            "detected_at": look.now,
        }
        for one in worse
    ]
    if rows:
        tables.append_rows(spark, settings, tables.ANOMALY_LOGS, rows)


def _profile_row(one: ColumnProfile, baseline_id: int | None, look: MonitoringRun) -> dict[str, Any]:
    raw = one.raw if one.raw and one.raw.records else None
    binned = raw if raw and len(raw.edges) else None
    return {
        **look.of_window(one.window),
        "slice": one.slice,
        "column_name": one.column,
        "baseline_id": baseline_id,
        "records": one.records,
        "nulls": one.nulls,
        "distinct_count": one.distinct,
        "distinct_sketch": one.sketch,
        "avg": raw.mean if raw else None,
        "stddev": raw.std if raw else None,
        "min": raw.lowest if raw else None,
        "max": raw.highest if raw else None,
        "quantiles": dict(zip(_QUANTILE_NAMES, binned.quantiles(_QUANTILES).tolist(), strict=True)) if binned else None,
        "bin_counts": [int(count) for count in binned.count] if binned else None,
        "category_counts": one.categories,
    }


def _drift_row(one: Drift, baseline_id: int | None, look: MonitoringRun) -> dict[str, Any]:
    return {
        **look.of_window(one.window, one.window_minutes, one.table_name),
        "column_name": one.column,
        "slice": one.slice,
        "comparison": one.comparison,
        "baseline_id": one.baseline_id or baseline_id,
        "metric": one.metric,
        "value": one.value,
        "p_value": one.p_value,
        "threshold": one.threshold,
        "records": one.records,
        "compared_records": one.compared_records,
        "status": "unknown" if one.is_drift is None else "drift" if one.is_drift else "ok",
        "is_drift": one.is_drift,
        "severity": one.severity,
        "detail": one.detail,
    }


def _anomaly_row(one: Anomaly, look: MonitoringRun) -> dict[str, Any]:
    return {
        **look.of_table(),
        "detector": one.detector,
        "anomaly_type": one.anomaly_type,
        "series": one.series,
        "slice": one.slice,
        "event_time": start_of(one.start, 1),
        "window_start": start_of(one.start, 1),
        "window_end": start_of(one.end, 1),
        "observed": one.observed,
        "expected": one.expected,
        "score": one.score,
        "threshold": one.threshold,
        "severity": "critical" if one.anomaly_type == "missing_pattern" and one.slice == ALL else "warning",
        "detected_at": look.now,
    }


def _append_anomalies(spark: SparkSession, settings: Settings, look: MonitoringRun, found: Found) -> int:
    """Write all anomalies in one commit; returns how many of them are events."""
    rows = [_anomaly_row(one, look) for one in found.anomalies]
    frames = [tables.few_rows(spark, tables.ANOMALY_LOGS, rows)] if rows else []
    frames += [_outlier_rows(found.outside, look)] if found.outside is not None else []
    if not frames:
        return 0
    return tables.append(settings, tables.ANOMALY_LOGS.name, reduce(_union, frames)) - len(rows)


def _union(one: DataFrame, other: DataFrame) -> DataFrame:
    return one.unionByName(other, allowMissingColumns=True)


def _outlier_rows(outside: DataFrame, look: MonitoringRun) -> DataFrame:
    """What `values.outside` found → rows of `anomaly_logs`."""
    return outside.select(
        *(F.lit(value).alias(name) for name, value in look.of_table().items()),
        "detector",
        F.lit("outlier").alias("anomaly_type"),
        F.col("column_name").alias("series"),
        "slice",
        F.col("event_id").cast("string").alias("event_id"),
        "event_time",
        F.lit(None).cast("timestamp").alias("window_start"),
        F.lit(None).cast("timestamp").alias("window_end"),
        "observed",
        "expected",
        "score",
        "threshold",
        F.when(F.abs("score") >= 2 * F.col("threshold"), "warning").otherwise("info").alias("severity"),
        F.lit(look.now).alias("detected_at"),
    ).withColumn("look", F.col("look").cast("long"))
