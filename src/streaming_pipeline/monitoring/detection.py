"""One look: profile, drift and anomalies of what is new, against what the looks before it have left."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from streaming_pipeline.core import tables
from streaming_pipeline.core.at_once import at_once
from streaming_pipeline.core.contract import Contract
from streaming_pipeline.core.settings import Settings
from streaming_pipeline.monitoring import baseline as baselines
from streaming_pipeline.monitoring import drift, profile, schema, values
from streaming_pipeline.monitoring import state as states
from streaming_pipeline.monitoring.arrivals import Anomaly, Watch
from streaming_pipeline.monitoring.baseline import SILVER, Baseline
from streaming_pipeline.monitoring.findings import Found, MonitoringRun, Written, write
from streaming_pipeline.monitoring.profile import ALL, Details, Profiles, Shape
from streaming_pipeline.monitoring.schema import UnknownField
from streaming_pipeline.monitoring.scores import ScoreProfile, judge_scores
from streaming_pipeline.monitoring.state import State
from streaming_pipeline.monitoring.windows import DAY_MINUTES, start_of

MOST_MINUTES = 400 * DAY_MINUTES
"""Further back than this no minute is judged: a record without a timestamp would stand for half a century of silence."""
MOST_SILENCE = 8 * DAY_MINUTES
_TABLES = (tables.PROFILE_METRICS, tables.DRIFT_METRICS, tables.ANOMALY_LOGS, tables.MONITOR_STATE, tables.BASELINES)
_LOOK_BACK = 10
"""The first baseline is looked for in so many times its windows."""


@dataclass(frozen=True)
class Begun:
    """What a look of this number begins with: the state that the one before has left, and the newest baseline."""

    look: int
    state: State
    baseline: Baseline | None
    """None also where its windows are not those that are set now."""
    newest_id: int
    """Of the newest baseline; 0: there is none."""
    damaged: str = ""
    """What the looks before have left and cannot be read, in a sentence; empty if there is nothing."""


@dataclass(frozen=True, eq=False)
class Asked:
    """What the tables say of the rows that are new: of silver their counts (None: there are none) and, by the baseline, the details of
    their columns; of bronze (None: nothing came) the fields that the contract lacks; of quarantine the reasons, and the types that fields
    have instead of the contract's; of gold the scores."""

    counted: pa.Table | None = None
    details: Details | None = None
    unknown: list[UnknownField] | None = None
    rejected: dict[tuple[int, str], int] = field(default_factory=dict)
    scored: ScoreProfile = field(default_factory=lambda: ScoreProfile(0, 0, []))
    retyped: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Detection:
    """What a monitoring run found, and how long a silence is usual now (None: not known yet)."""

    written: Written
    silent_seconds: float | None
    silence_allowed_seconds: float | None
    unknown_fields: dict[str, int] = field(default_factory=dict)
    """Fields of new payloads that the contract lacks → records that have them."""
    scored: int = 0
    flagged: int = 0
    """Of the events that gold has scored since the last look."""


def begin_look(spark: SparkSession, settings: Settings, look: int) -> Begun:
    """Create the tables that are missing, take away what a look of this number has left behind, and read what it begins with."""
    created = tables.create_missing(spark, settings, _TABLES)
    held, (newest, newest_id, damaged) = at_once(
        lambda: [] if tables.MONITOR_STATE.name in created else states.finished(spark, settings, look, _TABLES),
        lambda: (None, 0, []) if tables.BASELINES.name in created else baselines.newest(spark, settings, SILVER),
    )
    baseline = newest if newest and newest.shape.window_minutes == settings.window_minutes else None
    state = states.load(held, baseline)
    said = [f"monitor_state cannot be read for {', '.join(state.damaged)}: monitoring learns this again"] if state.damaged else []
    if damaged:
        instead = f"baseline {newest.baseline_id} takes its place" if newest else "the next clean windows make a new one"
        said.append(f"baseline {', '.join(map(str, damaged))} cannot be read: {instead}")
    return Begun(look, state, baseline, newest_id, "; ".join(said))


def ask(
    spark: SparkSession,
    settings: Settings,
    contract: Contract,
    begun: Begun,
    new: DataFrame,
    bronze: DataFrame | None,
    quarantined: DataFrame | None,
    now: datetime,
) -> Asked:
    """Ask the new rows of silver, bronze and quarantine, and what gold has scored, all that does not depend on what is found."""
    shape = _shape(begun.baseline, settings, contract)
    counted, details, unknown, (rejected, retyped), scored = at_once(
        lambda: profile.counts(new, contract, shape).toArrow(),
        # Of the first windows it is asked once their bins are known.
        lambda: profile.details(new, contract, shape) if begun.baseline else None,
        lambda: schema.unknown_fields(bronze) if bronze is not None else None,
        lambda: _rejections(quarantined, contract, settings.window_minutes) if quarantined is not None else ({}, {}),
        lambda: judge_scores(spark, settings, contract, begun.state.scores, now),
    )
    return Asked(counted if len(counted) else None, details, unknown, rejected, scored, retyped)


def _rejections(quarantined: DataFrame, contract: Contract, window_minutes: int) -> tuple[dict[tuple[int, str], int], dict[str, str]]:
    """Rejected records by window and reason and, where many have a field of another type, from which type to which."""
    rejected = schema.rejections(quarantined, window_minutes)
    return rejected, schema.retyped(quarantined, contract, rejected)


def detect(
    spark: SparkSession,
    settings: Settings,
    contract: Contract,
    begun: Begun,
    new: DataFrame | None,
    asked: Asked,
    now: datetime,
    waiting: int | None,
) -> Detection:
    """Judge what was asked of the new rows, of which `new` are those of silver, and write what is found.

    `waiting` records on the topic say that its source is not silent, whatever the tables hold.
    """
    state, baseline, is_first = begun.state, begun.baseline, begun.look == 1
    counted, details = asked.counted, asked.details
    if baseline and state.baseline_id != baseline.baseline_id:
        # A command made it since the last look. The window that is open now was begun with other bins: the next one is the first.
        values.learn(state.memories, baseline.reference, baseline.shape)
        state.next_window = max(_closed_before(settings, state.last_minute), baseline.windows[-1]) + 1
    shape = _shape(baseline, settings, contract)

    anomalies, until = _judge_arrivals(state, _arrivals(counted, shape, now), now, waiting)
    closed_before = _closed_before(settings, until)
    made = None
    if baseline is None and counted is not None:
        # What is new in the first look is all there is, and counted already.
        known = _by_event_window(counted) if is_first else None
        made = baseline = _first_baseline(spark, settings, contract, closed_before, anomalies, begun.newest_id + 1, known)
        # Counted without bins: minutes' means are judged from the next look on.
        if made and set(made.shape.slices) != set(shape.slices):
            counted = profile.counts(new, contract, made.shape).toArrow()
        shape = made.shape if made else shape
    profiles = profile.collect(counted, details or profile.details(new, contract, shape), contract) if counted is not None else {}
    if made:
        # What is new in the first look holds the baseline's windows whole.
        reference = profiles if is_first else baselines.held_by(spark.table(settings.table(SILVER)), contract, made)
        reference = {key: one for key, one in reference.items() if key[0] in made.windows}
        baseline = made = made.with_reference(reference)
        values.learn(state.memories, reference, shape)
        state.next_window = made.windows[-1] + 1
    state.baseline_id = baseline.baseline_id if baseline else None
    # The windows of a baseline that was made now are in the memory already, and are not judged by themselves.
    to_judge = {key: one for key, one in profiles.items() if not made or key[0] > made.windows[-1]}
    fences = values.learn(state.memories, to_judge, shape) if baseline else []
    anomalies += values.strange_minutes(counted, fences, shape) if fences and not made else []
    outside = values.outside(spark, new, fences, contract, shape) if fences else None
    judged = _judge_drift(state, baseline, profiles, closed_before) if baseline else []
    judged += asked.scored.judged
    if asked.unknown is not None:
        arrived = _by_window(counted, settings.window_minutes)
        judged += schema.changes(state.schema, asked.unknown, asked.rejected, arrived, settings.window_minutes, asked.retyped)

    found = Found(profiles, judged, anomalies, outside, baseline, made is not None)
    if counted is not None or asked.unknown is not None or judged or anomalies:
        written = write(spark, settings, MonitoringRun(begun.look, settings.run_id, now, settings.window_minutes), state, found)
    else:
        written = Written()
    silent = allowed = None
    if state.last_minute is not None and not waiting:
        silent = max(0.0, now.timestamp() - 60 * (state.last_minute + 1))
        allowed = state.watches[ALL].silence_allowed(state.last_minute + 1)
    unknown = {one.name: one.records for one in asked.unknown or ()}
    return Detection(written, silent, allowed, unknown, asked.scored.records, asked.scored.flagged)


def _shape(baseline: Baseline | None, settings: Settings, contract: Contract) -> Shape:
    """By what is profiled: as the baseline; before there is one without bins, by the slices that the contract names."""
    if baseline:
        return baseline.shape
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


def _by_event_window(counted: pa.Table) -> dict[int, int]:
    """Events by window of event time."""
    rows = counted.group_by("window").aggregate([("records", "sum")])
    return dict(zip(rows["window"].to_pylist(), rows["records_sum"].to_pylist(), strict=True))


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
    spark: SparkSession,
    settings: Settings,
    contract: Contract,
    closed_before: int,
    anomalies: Iterable[Anomaly],
    baseline_id: int,
    counts: dict[int, int] | None,
) -> Baseline | None:
    """The baseline of the first clean windows, if there are so many by now; `counts` has the events of each window, if known already."""
    silver = spark.table(settings.table(SILVER))
    size = settings.window_minutes
    # A stream that never has enough clean windows must not be read whole at each look.
    earliest = closed_before - _LOOK_BACK * settings.baseline_windows
    if counts is None:
        recent = F.col(f"`{contract.event_time_field}`") >= F.lit(start_of(earliest, size))
        counts = baselines.window_counts(silver.where(recent), contract, size)
    counts = {window: records for window, records in counts.items() if window >= earliest}
    strange = [range(found.start // size, -(-found.end // size)) for found in anomalies]
    windows = baselines.choose_windows(counts, closed_before, strange, settings.baseline_windows)
    return baselines.make(silver, contract, windows, size, baseline_id) if windows else None


def _judge_drift(state: State, held: Baseline, profiles: Profiles, closed_before: int) -> list[drift.Drift]:
    """Judge the windows that have closed, each once; what comes for one later is profiled, and not judged again."""
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
