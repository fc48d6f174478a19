"""What is drift measured against? A named, stored set of windows, with the bins that were laid over its values then."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import numpy as np
from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import functions as F

from streaming_pipeline.core import tables
from streaming_pipeline.core.at_once import at_once
from streaming_pipeline.core.contract import Contract, load_contract
from streaming_pipeline.core.errors import PipelineError, UsageError
from streaming_pipeline.core.json_files import UNREADABLE
from streaming_pipeline.core.settings import Settings, parse_period
from streaming_pipeline.core.wording import duration, plural
from streaming_pipeline.detectors.bins import SHARES, lay_bins
from streaming_pipeline.monitoring import profile
from streaming_pipeline.monitoring.profile import Profiles, Shape
from streaming_pipeline.monitoring.windows import DAY_MINUTES, number_of, start_of

SILVER, GOLD = "silver_events", "gold_anomaly_predictions"
FIRST = "first clean windows"
MOST_SLICES = 20
MIN_RECORDS = 100
"""A window, or a baseline, with fewer says nothing."""
USUAL = Settings.baseline_windows
"""So many windows make a baseline by default."""


@dataclass(frozen=True)
class Baseline:
    """One version of the baseline of a table."""

    baseline_id: int
    table_name: str
    name: str
    windows: tuple[int, ...]
    shape: Shape
    reference: Profiles = field(default_factory=dict, repr=False)
    """What its windows held, by time of day (number of the window within its day) instead of by window."""

    def with_reference(self, profiles: Profiles) -> "Baseline":
        """With what these profiles tell of its windows."""
        buckets = DAY_MINUTES // self.shape.window_minutes
        reference: Profiles = {}
        for (window, slice_name, column), one in profiles.items():
            if window in self.windows:
                key = (window % buckets, slice_name, column)
                here = replace(one, window=key[0])
                reference[key] = profile.merged(reference[key], here) if key in reference else here
        return replace(self, reference=reference)

    def to_row(self, look: int | None, run_id: str, now: datetime) -> dict[str, object]:
        """As a row of `baselines`."""
        minutes = self.shape.window_minutes
        return {
            "baseline_id": self.baseline_id,
            "table_name": self.table_name,
            "name": self.name,
            "window_minutes": minutes,
            "windows": [start_of(window, minutes) for window in self.windows],
            "slices": list(self.shape.slices),
            "edges": {column: list(edges) for column, edges in self.shape.edges.items()},
            "scales": dict(self.shape.scales),
            "reference": json.dumps([profile.to_json(one) for one in self.reference.values()]),
            "created_at": now,
            "look": look,
            "run_id": run_id,
        }


def newest(spark: SparkSession, settings: Settings, table_name: str) -> tuple[Baseline | None, int, list[int]]:
    """(the newest baseline of a table that can be read, the newest number, the numbers of those after it that cannot be read)."""
    rows = spark.table(settings.table("baselines")).where(F.col("table_name") == table_name)
    damaged: list[int] = []
    while row := rows.where(F.col("baseline_id") < damaged[-1] if damaged else F.lit(True)).orderBy(F.col("baseline_id").desc()).first():
        try:
            return _from_row(row), max([*damaged, row["baseline_id"]]), damaged
        except UNREADABLE:
            damaged.append(row["baseline_id"])
    return None, max(damaged, default=0), damaged


def newest_few(spark: SparkSession, settings: Settings, table_name: str, most: int) -> list[Baseline]:
    """The newest baselines of a table that has several in force, one for each version of a model; one that cannot be read is printed."""
    rows = spark.table(settings.table("baselines")).where(F.col("table_name") == table_name)
    held = []
    for row in rows.orderBy(F.col("created_at").desc()).limit(most).collect():
        try:
            held.append(_from_row(row))
        except UNREADABLE:
            print(f"Baseline {row['name']} cannot be read: scores of this model are not compared with its training.")
    return held


def _from_row(row: Row) -> Baseline:
    minutes = row["window_minutes"]
    windows = tuple(number_of(start, minutes) for start in row["windows"])
    edges = {column: tuple(values) for column, values in row["edges"].items()}
    shape = Shape(minutes, tuple(row["slices"]), edges, dict(row["scales"]))
    kept = [profile.from_json(one, shape) for one in json.loads(row["reference"])]
    return Baseline(row["baseline_id"], row["table_name"], row["name"], windows, shape, {one.key: one for one in kept})


def window_counts(silver: DataFrame, contract: Contract, window_minutes: int) -> dict[int, int]:
    """How many events each window has."""
    counted = (
        silver.groupBy(profile.event_window(contract, Shape(window_minutes))).agg(F.count(F.lit(1)).alias("records")).toArrow().to_pydict()
    )
    return dict(zip(counted["window"], counted["records"], strict=True))


def choose_windows(counts: dict[int, int], closed_before: int, excluded: Sequence[range], wanted: int) -> tuple[int, ...] | None:
    """The first `wanted` clean windows, as `clean_windows` has them. None if there are not so many yet."""
    clean = clean_windows(counts, closed_before, excluded)
    return tuple(clean[:wanted]) if len(clean) >= wanted else None


def clean_windows(counts: dict[int, int], closed_before: int, excluded: Sequence[range]) -> list[int]:
    """The windows before `closed_before` that have enough rows, not a fifth or five times as many as is usual, and no finding
    (`excluded`), in order."""
    enough = {window: count for window, count in counts.items() if window < closed_before and count >= MIN_RECORDS}
    usual = float(np.median(list(enough.values()))) if enough else 0.0
    return [
        window
        for window, count in sorted(enough.items())
        if usual / 5 <= count <= usual * 5 and not any(window in windows for windows in excluded)
    ]


@dataclass(frozen=True)
class BaselineRequest:
    """What a new baseline is to be: its name, and the period that its windows are taken from (None: the newest clean ones)."""

    name: str
    begin: datetime | None = None
    end: datetime | None = None

    @classmethod
    def from_texts(cls, name: str, begin: str, end: str) -> "BaselineRequest":
        """Parameters as texts. Raises `UsageError` naming one that cannot be used."""
        choice = cls(name.strip() or "chosen", *parse_period(begin, end))
        if (choice.begin is None) != (choice.end is None):
            raise UsageError("Give both 'from_time' (--from) and 'until_time' (--until), or neither for the newest clean windows.")
        return choice


@dataclass(frozen=True)
class Made:
    """A baseline that was made: its number and name, and the rows and windows that it stands on."""

    baseline_id: int
    name: str
    windows: int
    window_minutes: int
    records: int

    @property
    def note(self) -> str:
        """What was made, in words, with a warning if it stands on little."""
        windows = f"{plural(self.windows, 'window')} of {duration(60 * self.window_minutes)}"
        few = f". That is fewer than the usual {USUAL}: drift is judged less surely" if self.windows < USUAL else ""
        return f"baseline {self.baseline_id} ({self.name}) is made from {windows}; the next run measures drift against it{few}"


def set_baseline(spark: SparkSession, settings: Settings, choice: BaselineRequest) -> Made:
    """Make a new baseline of silver, which is in force from the next look on. The old ones are kept.

    Raises `PipelineError` if the period has no window with enough rows, or silver too few clean ones.
    """
    contract = load_contract(settings.contract_path)
    tables.create_missing(spark, settings, [tables.silver_events(contract), tables.BASELINES])
    silver = spark.table(settings.table(SILVER))
    minutes = settings.window_minutes
    counts = window_counts(silver, contract, minutes)
    if choice.begin and choice.end:
        chosen = range(-(-int(choice.begin.timestamp()) // (60 * minutes)), number_of(choice.end, minutes))
        windows = tuple(window for window in chosen if counts.get(window, 0) >= MIN_RECORDS)
        if not windows:
            raise PipelineError(
                f"From {choice.begin.isoformat()} to {choice.end.isoformat()} no window of {duration(60 * minutes)} has {MIN_RECORDS} "
                "events: choose another period (--from and --until), or give none to take the newest clean windows."
            )
    else:
        clean = clean_windows(counts, max(counts, default=0), _strange(spark, settings))
        if len(clean) < settings.baseline_windows:
            raise PipelineError(
                f"silver_events has {plural(len(clean), 'clean window')} of {duration(60 * minutes)}, and the baseline needs "
                f"{settings.baseline_windows}. A clean window is over, has {MIN_RECORDS} events or more, about as many as others, and no "
                "spike or silence. Wait, choose fewer windows (--windows, parameter 'baseline_windows') or a period (--from and --until, "
                "'from_time' and 'until_time')."
            )
        windows = tuple(clean[-settings.baseline_windows :])
    _, before, _ = newest(spark, settings, SILVER)
    made = make(silver, contract, windows, minutes, before + 1, choice.name)
    made = made.with_reference(held_by(silver, contract, made))
    tables.append_rows(spark, settings, tables.BASELINES, [made.to_row(None, settings.run_id, datetime.now(UTC))])
    return Made(made.baseline_id, made.name, len(windows), minutes, sum(counts[window] for window in windows))


def _strange(spark: SparkSession, settings: Settings) -> list[range]:
    """Windows in which looks have found a spike or a silence."""
    tables.create_missing(spark, settings, [tables.ANOMALY_LOGS])
    found = spark.table(settings.table("anomaly_logs")).where("anomaly_type IN ('spike', 'missing_pattern')")
    spans = found.select("window_start", "window_end").distinct().collect()
    last = lambda end: number_of(end - timedelta(microseconds=1), settings.window_minutes)  # noqa: E731
    return [range(number_of(begin, settings.window_minutes), last(end) + 1) for begin, end in spans]


def held_by(silver: DataFrame, contract: Contract, baseline: Baseline) -> Profiles:
    """Profiles of the windows that a baseline stands on."""
    past = silver.where(in_windows(contract, baseline.windows, baseline.shape.window_minutes))
    counted, asked = at_once(
        lambda: profile.counts(past, contract, baseline.shape).toArrow(), lambda: profile.details(past, contract, baseline.shape)
    )
    return profile.collect(counted, asked, contract)


def make(
    silver: DataFrame, contract: Contract, windows: Sequence[int], window_minutes: int, baseline_id: int, name: str = FIRST
) -> Baseline:
    """Lay bins over the values that these windows of silver hold, and choose the slices by their size."""
    rows = silver.where(in_windows(contract, windows, window_minutes))
    numbers = profile.numbers(contract)
    quantiles = [F.percentile_approx(F.col(f"`{n}`").cast("double"), list(SHARES), 10_000).alias(n) for n in numbers]
    slices, found = at_once(
        lambda: _largest_slices(rows, contract.slice_field) if contract.slice_field else (),
        lambda: rows.agg(*quantiles).first() if numbers else {},
    )
    edges, scales = {}, {}
    for number in numbers:
        if found[number]:
            edges[number], scale = lay_bins(np.array(found[number]))
            if scale:
                scales[number] = scale
    return Baseline(baseline_id, SILVER, name, tuple(windows), Shape(window_minutes, slices, edges, scales))


def _largest_slices(rows: DataFrame, slice_field: str) -> tuple[str, ...]:
    text = F.col(f"`{slice_field}`").cast("string").alias("slice")
    counted = rows.where(text != profile.ALL).groupBy(text).count().orderBy(F.col("count").desc(), "slice").limit(MOST_SLICES)
    return tuple(row["slice"] for row in counted.collect())


def in_windows(contract: Contract, windows: Sequence[int], window_minutes: int):
    """Whether an event lies in one of the windows; their extent as literals lets Delta skip files."""
    time = F.col(f"`{contract.event_time_field}`")
    begin, end = (F.lit(start_of(window, window_minutes)) for window in (min(windows), max(windows) + 1))
    within = (time >= begin) & (time < end)
    if len(windows) == max(windows) - min(windows) + 1:
        return within
    return within & profile.event_window(contract, Shape(window_minutes)).isin([int(window) for window in windows])
