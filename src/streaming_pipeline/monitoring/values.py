"""Which events have a strange value? Detectors draw fences from what came before each window; Spark finds the events outside.

The centre and the scale of each detector are taken, for each window and slice, from a memory of the windows before it, the same hour of
day if enough is remembered of it. What is flagged is not learnt from.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from streaming_pipeline.core.contract import Contract
from streaming_pipeline.detectors import DETECTORS
from streaming_pipeline.detectors.memory import DAYS, HOURS, Memory
from streaming_pipeline.detectors.summary import Summary
from streaming_pipeline.monitoring import profile
from streaming_pipeline.monitoring.arrivals import Anomaly, joined
from streaming_pipeline.monitoring.profile import OTHER, ColumnProfile, Profiles, Shape

MIN_RECORDS = {DAYS: 300, HOURS: 100}
"""With fewer remembered there are no fences."""
_ENOUGH_OF_AN_HOUR = 1_000
MIN_MEAN = 20
MEAN_SHIFT = 1.5
"""A minute's mean is of so many values at least, and strange only if it is so many scales away."""


@dataclass(frozen=True)
class Fence:
    """Of one detector for one window, slice and column: centre and scale (of values as detectors see them)."""

    window: int
    slice: str
    column: str
    detector: str
    centre: float
    scale: float
    threshold: float

    @property
    def reach(self) -> tuple[float, float]:
        """Between which no value is strange."""
        return self.centre - self.scale * self.threshold, self.centre + self.scale * self.threshold


@dataclass(eq=False)
class ColumnMemory:
    """What is remembered of one column in one slice: together, and by hour of day."""

    edges: np.ndarray
    memory: Memory = field(init=False)
    hours: dict[int, Summary] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.memory = Memory(self.edges)

    def fences(self, at: ColumnProfile, hour: int) -> list[Fence]:
        """The detectors' fences for the window of `at`; none while too little is remembered."""
        out = []
        of_hour = self.hours.get(hour)
        for name, detector in DETECTORS.items():
            seen = self.memory.held[detector.HALF_LIFE]
            if detector.HALF_LIFE == DAYS and of_hour is not None and of_hour.records >= _ENOUGH_OF_AN_HOUR:
                seen = of_hour
            if seen.records < MIN_RECORDS[detector.HALF_LIFE]:
                continue
            centre, scale = detector.centre_and_scale(seen)
            if np.isfinite(centre) and scale > 0:
                out.append(Fence(*at.key, name, centre, scale, detector.THRESHOLD))
        return out

    def learn(self, values: Summary, fences: Iterable[Fence], hour: int, window_minutes: int) -> None:
        """Take in the values of one window that lie within all fences."""
        for fence in fences:
            values = values.within(*fence.reach)
        self.memory.learn(values, window_minutes / 60)
        # Seen once a day: it weighs half after a week.
        before = self.hours.get(hour, Summary.empty(self.edges))
        self.hours[hour] = before.faded(0.5 ** (1 / (7 * max(1.0, 60 / window_minutes)))).merge(values)

    def to_json(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {**self.memory.to_json(), "hours": {str(hour): summary.to_json() for hour, summary in self.hours.items()}}

    @classmethod
    def from_json(cls, held: dict[str, Any], edges: np.ndarray) -> "ColumnMemory":
        """What `to_json` wrote of a memory with these edges."""
        memory = cls(edges)
        memory.memory = Memory.from_json(held, edges)
        memory.hours = {int(hour): Summary.from_json(summary, edges) for hour, summary in held["hours"].items()}
        return memory


Memories = dict[tuple[str, str], ColumnMemory]
"""By column and slice."""


def learn(memories: Memories, profiles: Profiles, shape: Shape) -> list[Fence]:
    """Fences for each window with new events, from what came before it, in order of time; then what is new of it is learnt too.

    Events are judged within their slice; those of no slice, or of too many slices, together.
    """
    out = []
    for (window, slice_name, column), one in sorted(profiles.items(), key=lambda item: item[0]):
        if one.scaled is None or column not in shape.edges or slice_name not in (*shape.slices, OTHER):
            continue
        memory = memories.setdefault((column, slice_name), ColumnMemory(one.scaled.edges))
        hour = window * shape.window_minutes // 60 % 24
        fences = memory.fences(one, hour)
        memory.learn(one.scaled, fences, hour, shape.window_minutes)
        out += fences
    return out


def strange_minutes(counted: pa.Table, fences: list[Fence], shape: Shape) -> list[Anomaly]:
    """Minutes whose mean is further from the centre than the fence of a mean of so many values, and than `MEAN_SHIFT` scales."""
    drawn: dict[tuple[int, str], list[Fence]] = {}
    for fence in fences:
        drawn.setdefault((fence.window, fence.slice), []).append(fence)
    found: list[Anomaly] = []
    for window, slice_name, rows in profile.by_window_and_slice(counted):
        for fence in drawn.get((window, slice_name), []):
            present = rows[f"present_{fence.column}"]
            with np.errstate(invalid="ignore", divide="ignore"):
                mean = rows[f"sum_{fence.column}"] / present
                score = (mean - fence.centre) / fence.scale * np.sqrt(present)
            strange = (present >= MIN_MEAN) & (np.abs(score) >= fence.threshold) & (np.abs(mean - fence.centre) >= MEAN_SHIFT * fence.scale)
            for minute, at, value in zip(rows["minute"][strange].tolist(), mean[strange], score[strange].tolist(), strict=True):
                observed, usual = (shape.unscaled(fence.column, number) for number in (at, fence.centre))
                name = f"mean({fence.column})"
                one = (fence.detector, "outlier", name, fence.slice, minute, minute + 1, observed, usual, value, fence.threshold)
                found.append(Anomaly(*one))
    return joined(found)


def outside(spark: SparkSession, silver: DataFrame, fences: list[Fence], contract: Contract, shape: Shape) -> DataFrame | None:
    """The events outside of fences, one row for each detector that says so: `event_id, event_time, slice, column_name, detector,
    observed, expected, score, threshold`. None without fences."""
    found = None
    for name in sorted({fence.column for fence in fences}):
        drawn = [fence for fence in fences if fence.column == name]
        by_window = F.broadcast(spark.createDataFrame(pa.Table.from_pylist([vars(fence) for fence in drawn])))
        # Between these no fence of any window lies: most events are done with after one comparison.
        lows, highs = zip(*(fence.reach for fence in drawn), strict=True)
        low, high = (shape.unscaled(name, end) for end in (max(lows), min(highs)))
        scale = shape.scales.get(name)
        seen = profile.scaled_column(F.col("observed"), scale)
        rows = silver.select(
            F.col(f"`{contract.id_field}`").alias("event_id"),
            F.col(f"`{contract.event_time_field}`").alias("event_time"),
            profile.event_window(contract, shape),
            profile.slice_number(contract, shape),
            F.col(f"`{name}`").cast("double").alias("observed"),
            F.lit(name).alias("column_name"),
        ).where(~F.col("observed").between(low, high))
        joined = profile.with_slice(rows, shape).join(by_window.drop("column"), on=["window", "slice"], how="inner")
        score = (seen - F.col("centre")) / F.col("scale")
        flagged = joined.withColumn("score", score).where(F.abs("score") >= F.col("threshold"))
        usual = profile.unscaled_column(F.col("centre"), scale).alias("expected")
        one = flagged.select("event_id", "event_time", "slice", "column_name", "detector", "observed", usual, "score", "threshold")
        found = one if found is None else found.unionByName(one)
    return found
