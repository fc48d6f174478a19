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

from streaming_pipeline.contract import Contract
from streaming_pipeline.detectors import DETECTORS
from streaming_pipeline.detectors.summary import Summary
from streaming_pipeline.monitoring import profile
from streaming_pipeline.monitoring.arrivals import Anomaly, joined
from streaming_pipeline.monitoring.profile import ColumnProfile, Shape

MIN_RECORDS = 300
MIN_RECORDS_SHORT = 100
"""With fewer remembered, of days and of hours, there are no fences."""
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


@dataclass(eq=False)
class Memory:
    """What is remembered of one column in one slice: for days, by hour of day, and for hours."""

    edges: np.ndarray
    long: Summary = field(init=False)
    short: Summary = field(init=False)
    hours: dict[int, Summary] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.long = self.short = Summary.empty(self.edges)

    def fences(self, at: ColumnProfile, hour: int) -> list[Fence]:
        """The detectors' fences for the window of `at`; none while too little is remembered."""
        out = []
        of_hour = self.hours.get(hour)
        for name, detector in DETECTORS.items():
            memory = self.short if name == "moving_average" else self.long
            if memory is self.long and of_hour is not None and of_hour.records >= _ENOUGH_OF_AN_HOUR:
                memory = of_hour
            if memory.records < (MIN_RECORDS_SHORT if memory is self.short else MIN_RECORDS):
                continue
            centre, scale = detector.centre_and_scale(memory)
            if np.isfinite(centre) and scale > 0:
                out.append(Fence(*at.key, name, centre, scale, detector.THRESHOLD))
        return out

    def learn(self, values: Summary, fences: Iterable[Fence], hour: int, window_minutes: int) -> None:
        """Take in the values of one window that lie within all fences."""
        for fence in fences:
            reach = fence.scale * fence.threshold
            values = values.within(fence.centre - reach, fence.centre + reach)
        windows_per_hour = 60 / window_minutes
        self.long = self.long.faded(0.5 ** (1 / (168 * windows_per_hour))).merge(values)
        self.short = self.short.faded(0.5 ** (1 / (6 * windows_per_hour))).merge(values)
        # Seen once a day: it weighs half after a week.
        before = self.hours.get(hour, Summary.empty(self.edges))
        self.hours[hour] = before.faded(0.5 ** (1 / (7 * max(1.0, windows_per_hour)))).merge(values)

    def to_json(self) -> dict[str, Any]:
        """As JSON can hold it."""
        hours = {str(hour): summary.to_json() for hour, summary in self.hours.items()}
        return {"long": self.long.to_json(), "short": self.short.to_json(), "hours": hours}

    @classmethod
    def from_json(cls, held: dict[str, Any], edges: np.ndarray) -> "Memory":
        """What `to_json` wrote of a memory with these edges."""
        memory = cls(edges)
        memory.long, memory.short = (Summary.from_json(held[name], edges) for name in ("long", "short"))
        memory.hours = {int(hour): Summary.from_json(summary, edges) for hour, summary in held["hours"].items()}
        return memory


def strange_minutes(counted: pa.Table, fences: list[Fence], shape: Shape) -> list[Anomaly]:
    """Minutes whose mean is further from the centre than the fence of a mean of so many values, and than `MEAN_SHIFT` scales."""
    drawn: dict[tuple[int, str], list[Fence]] = {}
    for fence in fences:
        drawn.setdefault((fence.window, fence.slice), []).append(fence)
    rows = {name: counted[name].to_numpy() for name in counted.column_names if name != "slice"}
    slices = np.array(counted["slice"].to_pylist(), dtype=object)
    order = np.lexsort((rows["minute"], slices.astype(str), rows["window"]))
    window, named = rows["window"][order], slices[order]
    borders = np.flatnonzero((np.diff(window) != 0) | (named[1:] != named[:-1])) + 1
    found: list[Anomaly] = []
    for part in np.split(order, borders) if len(order) else []:
        for fence in drawn.get((int(rows["window"][part[0]]), slices[part[0]]), []):
            present = rows[f"present_{fence.column}"][part]
            with np.errstate(invalid="ignore", divide="ignore"):
                mean = rows[f"sum_{fence.column}"][part] / present
                score = (mean - fence.centre) / fence.scale * np.sqrt(present)
            strange = (present >= MIN_MEAN) & (np.abs(score) >= fence.threshold) & (np.abs(mean - fence.centre) >= MEAN_SHIFT * fence.scale)
            for minute, at, value in zip(rows["minute"][part][strange].tolist(), mean[strange], score[strange].tolist(), strict=True):
                observed, usual = (shape.unscaled(fence.column, number) for number in (at, fence.centre))
                name = f"mean({fence.column})"
                one = (fence.detector, "outlier", name, fence.slice, minute, minute + 1, observed, usual, value, fence.threshold)
                found.append(Anomaly(*one))
    by_slice: dict[str, list[Anomaly]] = {}
    for one in found:
        by_slice.setdefault(one.slice, []).append(one)
    return [one for part in by_slice.values() for one in joined(part)]


def outside(spark: SparkSession, silver: DataFrame, fences: list[Fence], contract: Contract, shape: Shape) -> DataFrame | None:
    """The events outside of fences, one row for each detector that says so: `event_id, event_time, slice, column_name, detector,
    observed, expected, score, threshold`. None without fences."""
    found = None
    for name in sorted({fence.column for fence in fences}):
        drawn = [vars(fence) for fence in fences if fence.column == name]
        by_window = F.broadcast(spark.createDataFrame(pa.Table.from_pylist(drawn)))
        value = F.col(f"`{name}`").cast("double")
        scale = shape.scales.get(name)
        seen = profile.scaled_column(F.col("observed"), scale)
        back = F.col("centre")
        usual = (F.signum(back) * F.sinh(F.abs(back)) * scale) if scale else back
        widest = _within_all([fence for fence in fences if fence.column == name])
        rows = silver.select(
            F.col(f"`{contract.id_field}`").alias("event_id"),
            F.col(f"`{contract.event_time_field}`").alias("event_time"),
            profile.window_of(contract, shape.window_minutes),
            profile.slice_of(contract, shape),
            value.alias("observed"),
            F.lit(name).alias("column_name"),
        ).where(~seen.between(*widest))
        joined = rows.join(by_window.drop("column"), on=["window", "slice"], how="inner")
        score = (seen - F.col("centre")) / F.col("scale")
        flagged = joined.withColumn("score", score).where(F.abs("score") >= F.col("threshold"))
        one = flagged.select(
            "event_id", "event_time", "slice", "column_name", "detector", "observed", usual.alias("expected"), "score", "threshold"
        )
        found = one if found is None else found.unionByName(one)
    return found


def _within_all(fences: list[Fence]) -> tuple[float, float]:
    """Between these no fence of any window lies: most events are done with after one comparison."""
    reaches = [(fence.centre - fence.scale * fence.threshold, fence.centre + fence.scale * fence.threshold) for fence in fences]
    return max(low for low, _ in reaches), min(high for _, high in reaches)
