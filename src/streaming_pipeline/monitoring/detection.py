"""One look's findings: profile, drift and anomalies of what is new, and the state that the next look goes on from.

Every row that a look writes carries its number. The row of `monitor_logs` comes last; what a look wrote that did not come to it is taken
away by the next one, which has the same number.
"""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import functions as F

from streaming_pipeline import tables
from streaming_pipeline.contract import Contract
from streaming_pipeline.monitoring import baseline as baselines
from streaming_pipeline.monitoring import drift, profile, schema, values
from streaming_pipeline.monitoring.arrivals import Anomaly, Watch
from streaming_pipeline.monitoring.baseline import DAY_MINUTES, SILVER, Baseline
from streaming_pipeline.monitoring.profile import ALL, OTHER, ColumnProfile, Profiles, Shape
from streaming_pipeline.monitoring.schema import Known
from streaming_pipeline.settings import Settings

MOST_MINUTES = 400 * DAY_MINUTES
"""Further back than this no minute is judged: a record without a timestamp would stand for half a century of silence."""
MOST_SILENCE = 8 * DAY_MINUTES
_LOOK_BACK = 10
"""The first baseline is looked for in so many times its windows."""
_QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
_QUANTILE_NAMES = [f"p{100 * q:02.0f}" for q in _QUANTILES]


@dataclass(frozen=True)
class Detection:
    """What a look found: how many findings of each kind, and how long a silence is usual now (None: not known yet)."""

    findings: dict[str, int]
    silent_seconds: float | None
    silence_allowed_seconds: float | None
    unknown_fields: dict[str, int] = field(default_factory=dict)
    """Fields of new payloads that the contract lacks → records that have them."""


@dataclass(eq=False)
class State:
    """What one look hands to the next."""

    watches: dict[str, Watch] = field(default_factory=dict)
    memories: dict[tuple[str, str], values.Memory] = field(default_factory=dict)
    """By column and slice."""
    open: Profiles = field(default_factory=dict)
    """Windows that are not closed, and the last one that is."""
    next_window: int | None = None
    """The first window whose drift was not judged."""
    last_minute: int | None = None
    """Of the newest arrival."""
    schema: Known = field(default_factory=Known)
    baseline_id: int | None = None
    """By which memories and open windows were made."""


@dataclass(frozen=True)
class Look:
    """Which look it is, and when."""

    number: int
    run_id: str
    now: datetime
    window_minutes: int

    def of_window(self, window: int) -> dict[str, Any]:
        """What every row about a window of silver begins with."""
        begin, end = (baselines.start_of(number, self.window_minutes) for number in (window, window + 1))
        return {**self.of_table(), "window_start": begin, "window_end": end}

    def of_table(self) -> dict[str, Any]:
        """What every row about silver begins with."""
        return {"look": self.number, "run_id": self.run_id, "table_name": SILVER}


@dataclass(frozen=True)
class Found:
    """What a look has to write besides its state."""

    profiles: Profiles
    judged: list[drift.Drift]
    anomalies: list[Anomaly]
    outside: DataFrame | None
    baseline: Baseline | None
    """The one in force."""
    is_new: bool
    """Whether this look made it."""


def detect(
    spark: SparkSession,
    settings: Settings,
    contract: Contract,
    new: DataFrame | None,
    bronze: DataFrame | None,
    quarantined: DataFrame | None,
    look: int,
    now: datetime,
    waiting: int | None,
) -> Detection:
    """Look at the new rows of silver, bronze and quarantine (None: there are none) and write what is found.

    `waiting` records on the topic say that its source is not silent, whatever the tables hold.
    """
    every = (tables.PROFILE_METRICS, tables.DRIFT_METRICS, tables.ANOMALY_LOGS, tables.MONITOR_STATE, tables.BASELINES)
    tables.create_missing(spark, settings, every)
    held = _finished_state(spark, settings, look, every)
    baseline = baselines.newest(spark, settings, SILVER)
    version = baseline.baseline_id if baseline else 0
    if baseline and baseline.shape.window_minutes != settings.window_minutes:
        baseline = None
    state = _state_from(held, baseline)
    if baseline and state.baseline_id != baseline.baseline_id:
        # A command made it since the last look. The window that is open now was begun with other bins: the next one is the first.
        state.memories = _learnt(baseline.reference, baseline.shape)
        state.next_window = max(_closed_before(settings, state.last_minute), baseline.windows[-1]) + 1
    shape = baseline.shape if baseline else _first_shape(settings, contract)

    counted = profile.counts(new, contract, shape).toArrow() if new is not None else None
    anomalies, until = _judge_arrivals(state, _arrivals(counted, shape, now), now, waiting)
    closed_before = _closed_before(settings, until)
    made = None
    if baseline is None and new is not None:
        made = baseline = _first_baseline(spark, settings, contract, closed_before, anomalies, version + 1)
        # Counted without bins: minutes' means are judged from the next look on.
        if made and set(made.shape.slices) != set(shape.slices):
            counted = profile.counts(new, contract, made.shape).toArrow()
        shape = made.shape if made else shape
    profiles = profile.collect(new, counted, contract, shape) if counted is not None else {}
    if made:
        past = spark.table(settings.table(SILVER)).where(baselines.in_windows(contract, made.windows, shape.window_minutes))
        is_all_new = look == 1  # then what is new holds the baseline's windows whole
        reference = profiles if is_all_new else profile.collect(past, profile.counts(past, contract, shape).toArrow(), contract, shape)
        reference = {key: one for key, one in reference.items() if key[0] in made.windows}
        baseline = made = made.with_reference(reference)
        state = State(state.watches, _learnt(reference, shape), {}, made.windows[-1] + 1, state.last_minute, state.schema)
    state.baseline_id = baseline.baseline_id if baseline else None
    fences = _fences(state, profiles, shape, made.windows[-1] if made else None) if baseline else []
    anomalies += values.strange_minutes(counted, fences, shape) if fences and not made else []
    outside = values.outside(spark, new, fences, contract, shape) if fences else None
    judged = _judge_drift(state, baseline, profiles, closed_before) if baseline else []
    unknown = schema.unknown_fields(bronze) if bronze is not None else []
    if bronze is not None:
        rejected = schema.rejections(quarantined, settings.window_minutes)
        judged += schema.changes(state.schema, unknown, rejected, _by_window(counted, settings.window_minutes), settings.window_minutes)

    found = Found(profiles, judged, anomalies, outside, baseline, made is not None)
    if new is not None or bronze is not None or judged or anomalies:
        findings = _write(spark, settings, Look(look, settings.run_id, now, settings.window_minutes), state, found)
    else:
        findings = {}
    silent = allowed = None
    if state.last_minute is not None and not waiting:
        silent = max(0.0, now.timestamp() - 60 * (state.last_minute + 1))
        allowed = state.watches[ALL].silence_allowed(state.last_minute + 1)
    return Detection(findings, silent, allowed, {one.name: one.records for one in unknown})


def _first_shape(settings: Settings, contract: Contract) -> Shape:
    """By what is profiled before there is a baseline: no bins, and the slices that the contract names."""
    named = [f.valid_values for f in contract.fields if f.name == contract.slice_field]
    return Shape(settings.window_minutes, tuple(str(value) for value in named[0] if value != ALL) if named else ())


def _arrivals(counted: pa.Table | None, shape: Shape, now: datetime) -> dict[str, dict[int, int]]:
    """Slice → minute → arrivals; those dated ahead of this machine's clock are left out."""
    by_slice: dict[str, dict[int, int]] = {ALL: {}}
    if counted is None:
        return by_slice
    rows = counted.group_by(["minute", "slice"]).aggregate([("records", "sum")])
    latest = int(now.timestamp() // 60)
    for minute, slice_name, records in zip(*(rows[name].to_pylist() for name in ("minute", "slice", "records_sum")), strict=True):
        if minute > latest:
            continue
        for part in (slice_name, ALL) if shape.slices else (ALL,):
            minutes = by_slice.setdefault(part, {})
            minutes[minute] = minutes.get(minute, 0) + records
    return by_slice


def _by_window(counted: pa.Table | None, window_minutes: int) -> dict[int, int]:
    """Arrivals by window of arrival."""
    out: dict[int, int] = {}
    if counted is not None:
        for minute, records in zip(counted["minute"].to_pylist(), counted["records"].to_pylist(), strict=True):
            out[minute // window_minutes] = out.get(minute // window_minutes, 0) + records
    return out


def _judge_arrivals(
    state: State, arrived: dict[str, dict[int, int]], now: datetime, waiting: int | None
) -> tuple[list[Anomaly], int | None]:
    """Findings about arrivals, and the minute up to which the stream was looked at: its newest, or now if nothing waits on the topic."""
    newest = max(arrived[ALL], default=state.last_minute)
    if newest is None:
        return [], None
    newest = max(newest, state.last_minute or newest)
    state.last_minute = newest
    until = newest if waiting else max(newest, min(int(now.timestamp() // 60), newest + MOST_SILENCE))
    found = []
    for name in {**dict.fromkeys(state.watches), **dict.fromkeys(arrived)}:
        minutes = {minute: count for minute, count in arrived.get(name, {}).items() if minute >= until - MOST_MINUTES}
        watch = state.watches.setdefault(name, Watch())
        if watch.next_minute is not None:
            watch.next_minute = max(watch.next_minute, until - MOST_MINUTES)
        found += watch.judge(name, minutes, until)
    return found, until


def _closed_before(settings: Settings, until: int | None) -> int:
    """The first window that may still get events that are not late."""
    return -1 if until is None else int((60 * until - settings.late_after_seconds) // (60 * settings.window_minutes))


def _first_baseline(
    spark: SparkSession, settings: Settings, contract: Contract, closed_before: int, anomalies: Iterable[Anomaly], baseline_id: int
) -> Baseline | None:
    silver = spark.table(settings.table(SILVER))
    size = settings.window_minutes
    # A stream that never has enough clean windows must not be read whole at each look.
    recent = F.col(f"`{contract.event_time_field}`") >= F.lit(
        baselines.start_of(closed_before - _LOOK_BACK * settings.baseline_windows, size)
    )
    counts = baselines.window_counts(silver.where(recent), contract, size)
    strange = [range(found.start // size, -(-found.end // size)) for found in anomalies]
    windows = baselines.choose_windows(counts, closed_before, strange, settings.baseline_windows)
    return baselines.make(silver, contract, windows, size, baseline_id) if windows else None


def _learnt(reference: Profiles, shape: Shape) -> dict[tuple[str, str], values.Memory]:
    """Memories of the baseline's own windows."""
    memories: dict[tuple[str, str], values.Memory] = {}
    for (window, slice_name, column), one in sorted(reference.items(), key=lambda item: item[0]):
        if one.scaled is not None and slice_name in _value_slices(shape):
            memory = memories.setdefault((column, slice_name), values.Memory(one.scaled.edges))
            hour = _hour(window, shape)
            memory.learn(one.scaled, memory.fences(one, hour), hour, shape.window_minutes)
    return memories


def _value_slices(shape: Shape) -> tuple[str, ...]:
    """Events are judged within their slice; those of no slice, or of too many slices, together."""
    return (*shape.slices, OTHER)


def _hour(window: int, shape: Shape) -> int:
    return window * shape.window_minutes // 60 % 24


def _fences(state: State, profiles: Profiles, shape: Shape, learnt_until: int | None) -> list[values.Fence]:
    """Fences for each window with new events, from what came before it; then what is new is learnt too.

    Windows up to `learnt_until` are in the memory already, and are not judged by themselves.
    """
    out = []
    for (window, slice_name, column), one in sorted(profiles.items(), key=lambda item: item[0]):
        if (
            one.scaled is None
            or column not in shape.edges
            or slice_name not in _value_slices(shape)
            or (learnt_until is not None and window <= learnt_until)
        ):
            continue
        memory = state.memories.setdefault((column, slice_name), values.Memory(one.scaled.edges))
        hour = _hour(window, shape)
        fences = memory.fences(one, hour)
        memory.learn(one.scaled, fences, hour, shape.window_minutes)
        out += fences
    return out


def _judge_drift(state: State, held: Baseline, profiles: Profiles, closed_before: int) -> list[drift.Drift]:
    """Judge the windows that have closed, each once; what comes for one later is profiled, and not judged again."""
    if state.next_window is None:
        state.next_window = held.windows[-1] + 1
    for key, one in profiles.items():
        if key[0] >= state.next_window - 1:
            state.open[key] = profile.merged(state.open[key], one) if key in state.open else one
    # A window is closed once a later one has events, too: a source may hand over yesterday's.
    closed_before = min(closed_before, max((key[0] for key in state.open), default=closed_before))
    buckets = DAY_MINUTES // held.shape.window_minutes
    closed = sorted({key[0] for key in state.open if state.next_window <= key[0] < closed_before})
    found = drift.compare(drift.pairs(closed, state.open, held.reference, buckets))
    state.next_window = max(state.next_window, closed_before)
    state.open = {key: one for key, one in state.open.items() if key[0] >= state.next_window - 1}
    return found


def _finished_state(spark: SparkSession, settings: Settings, look: int, every: Iterable[tables.Table]) -> list[Row]:
    """The newest state of a look before this one. What a look of this number wrote that did not come to its end is taken away: it
    wrote its state first."""
    rows = spark.table(settings.table("monitor_state"))
    looks = sorted(row["look"] for row in rows.select("look").distinct().collect())
    if looks and looks[-1] >= look:
        for table in every:
            spark.sql(f"DELETE FROM {settings.table(table.name)} WHERE look >= {look}")
    before = [number for number in looks if number < look]
    return rows.where(F.col("look") == before[-1]).collect() if before else []


def _write(spark: SparkSession, settings: Settings, look: Look, state: State, found: Found) -> dict[str, int]:
    """Write the rows of this look; returns how many findings there are of each kind."""
    baseline_id = found.baseline.baseline_id if found.baseline else None
    rows = {
        # First: by it the next look knows that there is something to take away, should this one not come to its end.
        tables.MONITOR_STATE: _state_rows(state, look),
        tables.BASELINES: [found.baseline.to_row(look.number, look.run_id, look.now)] if found.is_new else [],
        tables.PROFILE_METRICS: [_profile_row(one, baseline_id, look) for one in found.profiles.values()],
        tables.DRIFT_METRICS: [_drift_row(one, baseline_id, look) for one in found.judged],
        tables.ANOMALY_LOGS: [_anomaly_row(one, look) for one in found.anomalies],
    }
    for table, of_table in rows.items():
        if of_table:
            tables.append_rows(spark, settings, table, of_table)
    findings = Counter(one.anomaly_type for one in found.anomalies)
    findings.update("schema_change" if one.metric.startswith("schema_") else "drift" for one in found.judged if one.is_drift)
    if found.outside is not None:
        findings["outlier"] += tables.append(settings, "anomaly_logs", _outlier_rows(found.outside, look))
    return {kind: count for kind, count in findings.items() if count}


def _profile_row(one: ColumnProfile, baseline_id: int | None, look: Look) -> dict[str, Any]:
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


def _drift_row(one: drift.Drift, baseline_id: int | None, look: Look) -> dict[str, Any]:
    return {
        **look.of_window(one.window),
        "column_name": one.column,
        "slice": one.slice,
        "comparison": one.comparison,
        "baseline_id": baseline_id,
        "metric": one.metric,
        "value": one.value,
        "p_value": one.p_value,
        "threshold": one.threshold,
        "records": one.records,
        "compared_records": one.compared_records,
        "status": "unknown" if one.is_drift is None else "drift" if one.is_drift else "ok",
        "is_drift": one.is_drift,
        "severity": one.severity,
    }


def _anomaly_row(one: Anomaly, look: Look) -> dict[str, Any]:
    return {
        **look.of_table(),
        "detector": one.detector,
        "anomaly_type": one.anomaly_type,
        "series": one.series,
        "slice": one.slice,
        "event_time": baselines.start_of(one.start, 1),
        "window_start": baselines.start_of(one.start, 1),
        "window_end": baselines.start_of(one.end, 1),
        "observed": one.observed,
        "expected": one.expected,
        "score": one.score,
        "threshold": one.threshold,
        "severity": "critical" if one.anomaly_type == "missing_pattern" and one.slice == ALL else "warning",
        "detected_at": look.now,
    }


def _outlier_rows(outside: DataFrame, look: Look) -> DataFrame:
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


def _state_rows(state: State, look: Look) -> list[dict[str, Any]]:
    parts = [("arrivals", name, watch.to_json()) for name, watch in state.watches.items()]
    parts += [("values", f"{column}/{name}", memory.to_json()) for (column, name), memory in state.memories.items()]
    parts += [("drift", "", {"next_window": state.next_window, "open": [profile.to_json(one) for one in state.open.values()]})]
    parts += [("schema", "", state.schema.to_json())]
    parts += [("clock", "", {"last_minute": state.last_minute, "baseline_id": state.baseline_id})]
    return [
        {"look": look.number, "detector": detector, "slice": name, "state": json.dumps(held), "updated_at": look.now}
        for detector, name, held in parts
    ]


def _state_from(rows: list[Row], held: Baseline | None) -> State:
    """What the rows remember; memories and open windows only if they were made by the baseline that is in force."""
    content = {(row["detector"], row["slice"]): json.loads(row["state"]) for row in rows}
    clock = content.get(("clock", ""), {"last_minute": None, "baseline_id": None})
    state = State(last_minute=clock["last_minute"], baseline_id=clock["baseline_id"])
    is_of_baseline = held is not None and state.baseline_id == held.baseline_id
    for (detector, name), kept in content.items():
        if detector == "arrivals":
            state.watches[name] = Watch.from_json(kept)
        elif detector == "schema":
            state.schema = Known(**kept)
        elif is_of_baseline and detector == "values":
            column, slice_name = name.split("/", 1)
            state.memories[column, slice_name] = values.Memory.from_json(kept, _scaled_edges(held.shape, column))
        elif is_of_baseline and detector == "drift":
            state.next_window = kept["next_window"]
            opened = [profile.from_json(one, held.shape) for one in kept["open"]]
            state.open = {one.key: one for one in opened}
    return state


def _scaled_edges(shape: Shape, column: str) -> np.ndarray:
    return shape.scaled(column, np.array(shape.edges.get(column, ())))
