"""What do the new silver rows look like, by window, slice and column? One pass over the columns that each question needs.

A window is an hour (parameter `window_minutes`) of event time, in which late events come too: what is new of a window is told for each
look, and merges with what earlier looks told of it.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from streaming_pipeline.core.at_once import at_once
from streaming_pipeline.core.contract import Contract
from streaming_pipeline.detectors.bins import as_seen
from streaming_pipeline.detectors.summary import Summary
from streaming_pipeline.monitoring.windows import window_of

ALL = "*"
"""The slice that is everything."""
OTHER = "(other)"
MOST_CATEGORIES = 50
BEYOND = 6
"""So many edges on each side lie outside of the baseline's values."""
_SKETCH_BITS = 10  # 1,024 registers: the number of distinct values to 3 % (one standard error), of 1 KB


@dataclass(frozen=True)
class Shape:
    """By what a profile is made: its windows, its slices, and per column its bins or categories.

    `edges` has the numbers' bins, `scales` the s of those that detectors see as asinh(x / s), since they are skewed.
    """

    window_minutes: int
    slices: tuple[str, ...] = ()
    edges: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    scales: Mapping[str, float] = field(default_factory=dict)

    def scaled(self, column: str, values: np.ndarray) -> np.ndarray:
        """Values as the detectors see them."""
        return as_seen(values, self.scales.get(column))

    def scaled_edges(self, column: str) -> np.ndarray:
        """The edges of its bins, as the detectors see them."""
        return self.scaled(column, np.array(self.edges.get(column, ())))

    def unscaled(self, column: str, value: float) -> float:
        """A value as it was before `scaled`."""
        scale = self.scales.get(column)
        return float(np.sinh(value) * scale) if scale else float(value)

    def ends(self, column: str) -> tuple[float, float]:
        """Between which the baseline's own values lie, but for one in a thousand on each side, as detectors see them."""
        edges = self.scaled_edges(column)
        beyond = min(BEYOND, (len(edges) - 1) // 2)
        return float(edges[beyond]), float(edges[-1 - beyond])


def scaled_column(value: Column, scale: float | None) -> Column:
    """A number as detectors see it."""
    # Of a negative number far from 0 Spark's asinh is -Infinity.
    return F.signum(value) * F.asinh(F.abs(value) / scale) if scale else value


def unscaled_column(value: Column, scale: float | None) -> Column:
    """A number as it was before `scaled_column`."""
    return F.sinh(value) * scale if scale else value


def numbers(contract: Contract) -> list[str]:
    """The fields that have moments and bins."""
    return [f.name for f in contract.fields if f.logical_type in ("number", "integer")]


def categories(contract: Contract) -> list[str]:
    """The fields of few values: those with a list of them, booleans, and the slice field."""
    kinds = [f.name for f in contract.fields if f.valid_values or f.logical_type == "boolean" or f.name == contract.slice_field]
    return [name for name in kinds if name not in numbers(contract)]


def optional(contract: Contract) -> list[str]:
    """The fields that may be empty in silver."""
    return [f.name for f in contract.fields if not f.required]


def many_valued(contract: Contract) -> list[str]:
    """The fields whose distinct values are estimated: silver has each id once, a time says nothing, and few values are counted."""
    known = {contract.id_field, contract.event_time_field, *categories(contract)}
    return [name for name in contract.field_names if name not in known]


def event_window(contract: Contract, shape: Shape) -> Column:
    """The number of the window that an event is in."""
    return window_of(f"`{contract.event_time_field}`", shape.window_minutes).alias("window")


def slice_number(contract: Contract, shape: Shape) -> Column:
    """The place of a row's slice among the shape's; behind them if its slice field says none of these.

    Rows are grouped by numbers: with a text among them it would take twice the time.
    """
    text = F.col(f"`{contract.slice_field}`").cast("string") if contract.slice_field else F.lit(None)
    places = (F.when(text == name, place) for place, name in enumerate(shape.slices))
    return F.coalesce(*places, F.lit(len(shape.slices))).alias("slice_number")


def with_slice(rows: DataFrame, shape: Shape) -> DataFrame:
    """Rows with their `slice` by name, instead of its `slice_number`."""
    names = F.array(*(F.lit(name) for name in (*shape.slices, OTHER)))
    return rows.withColumn("slice", F.element_at(names, F.col("slice_number") + 1)).drop("slice_number")


def counts(silver: DataFrame, contract: Contract, shape: Shape) -> DataFrame:
    """`minute, window, slice, records`, `nulls_<field>` of each field that may be empty, and of each number that has bins
    `present_<field>` and `sum_<field>`, as detectors see it, cut at the ends of the bins that the baseline's own values lie in: one value
    far out must not make a minute strange. Minutes (since 1970) are of Kafka's clock."""
    keys = (window_of("kafka_timestamp", 1).alias("minute"), event_window(contract, shape), slice_number(contract, shape))
    nulls = (F.count_if(F.isnull(f"`{name}`")).alias(f"nulls_{name}") for name in optional(contract))
    sums = []
    for name in (n for n in numbers(contract) if n in shape.edges):
        value = scaled_column(F.col(f"`{name}`").cast("double"), shape.scales.get(name))
        low, high = shape.ends(name)
        sums += [F.count(value).alias(f"present_{name}"), F.sum(F.greatest(F.least(value, F.lit(high)), F.lit(low))).alias(f"sum_{name}")]
    return with_slice(silver.groupBy(*keys).agg(F.count(F.lit(1)).alias("records"), *nulls, *sums), shape)


def sketches(silver: DataFrame, contract: Contract, shape: Shape) -> DataFrame:
    """`window, slice` and of each field that may have many values `sketch_<field>` and `distinct_<field>`; the slice * holds all."""
    names = many_valued(contract)
    keys = (event_window(contract, shape), slice_number(contract, shape))
    hashed = (F.hll_sketch_agg(F.xxhash64(f"`{name}`"), _SKETCH_BITS).alias(f"sketch_{name}") for name in names)
    by_slice = with_slice(silver.groupBy(*keys).agg(*hashed), shape)
    together = (F.hll_union_agg(f"sketch_{name}").alias(f"sketch_{name}") for name in names)
    whole = by_slice.groupBy("window").agg(F.lit(ALL).alias("slice"), *together)
    return by_slice.unionByName(whole).select("*", *(F.hll_sketch_estimate(f"sketch_{name}").alias(f"distinct_{name}") for name in names))


def category_counts(silver: DataFrame, column: str, contract: Contract, shape: Shape) -> DataFrame:
    """`window, slice, category, records`; NULL is no category."""
    keys = (event_window(contract, shape), slice_number(contract, shape), F.col(f"`{column}`").cast("string").alias("category"))
    return with_slice(silver.where(f"`{column}` IS NOT NULL").groupBy(*keys).agg(F.count(F.lit(1)).alias("records")), shape)


def bins(silver: DataFrame, column: str, contract: Contract, shape: Shape) -> DataFrame:
    """`window, slice, bin` and of the numbers in it: `records`, `mean`, `variance`, `lowest`, `highest`, and the same as detectors see
    them: `scaled_mean`, `scaled_variance`."""
    value = F.col(f"`{column}`").cast("double")
    scale = shape.scales.get(column)
    # Neither NULL nor NaN nor infinite.
    rows = silver.where(F.abs(value) <= sys.float_info.max).select(
        event_window(contract, shape),
        slice_number(contract, shape),
        value.alias("value"),
        bin_of(value, shape.edges.get(column, ())).alias("bin"),
        *([scaled_column(value, scale).alias("scaled")] if scale else []),
    )
    moments = [F.count(F.lit(1)).alias("records"), F.avg("value").alias("mean"), F.var_pop("value").alias("variance")]
    scaled = [F.avg("scaled").alias("scaled_mean"), F.var_pop("scaled").alias("scaled_variance")] if scale else []
    ends = (F.min("value").alias("lowest"), F.max("value").alias("highest"))
    return with_slice(rows.groupBy("window", "slice_number", "bin").agg(*moments, *ends, *scaled), shape)


def bin_of(value: Column, edges: Sequence[float]) -> Column:
    """The bin that a value is in, as `Summary` has them, by halving: five comparisons for forty bins."""
    if not edges:
        return F.lit(0)

    def search(low: int, high: int) -> Column:
        if low == high:
            return F.lit(low)
        middle = (low + high) // 2
        return F.when(value <= edges[middle], search(low, middle)).otherwise(search(middle + 1, high))

    return search(0, len(edges))


@dataclass(eq=False)
class ColumnProfile:
    """What is new of one column in one window and slice. `raw` and `scaled` are a number's, `categories` those of a field of few values."""

    window: int
    slice: str
    column: str
    records: int
    nulls: int
    distinct: int | None = None
    sketch: bytes | None = None
    raw: Summary | None = None
    scaled: Summary | None = None
    categories: Mapping[str, int] | None = None

    @property
    def key(self) -> tuple[int, str, str]:
        """What it is a profile of."""
        return self.window, self.slice, self.column


Profiles = dict[tuple[int, str, str], ColumnProfile]
"""By window, slice and column."""


@dataclass(frozen=True, eq=False)
class Details:
    """What is asked of each column of some rows of silver, besides their `counts`."""

    sketched: pa.Table | None
    by_category: list[dict[tuple[int, str, str], dict[str, int]]]
    by_number: list[dict[tuple[int, str, str], tuple[Summary, Summary]]]


def details(silver: DataFrame, contract: Contract, shape: Shape) -> Details:
    """Ask it."""
    counted_by_query = [name for name in categories(contract) if name != contract.slice_field]
    return Details(
        *at_once(
            lambda: sketches(silver, contract, shape).toArrow() if many_valued(contract) else None,
            lambda: at_once(*(partial(_category_counts, silver, name, contract, shape) for name in counted_by_query)),
            lambda: at_once(*(partial(_summaries, silver, name, contract, shape) for name in numbers(contract))),
        )
    )


def collect(counted: pa.Table, asked: Details, contract: Contract) -> Profiles:
    """The profiles of rows of silver, each slice and all of them together, from their `counts` and `details`."""
    found = _counted(counted, contract)
    sketched, by_category = asked.sketched, list(asked.by_category)
    if contract.slice_field in categories(contract):
        by_category.append(_categories_of_slices(found, contract.slice_field))
    if sketched is not None:
        held = sketched.to_pydict()
        for n, key in enumerate(zip(held["window"], held["slice"], strict=True)):
            for name in many_valued(contract):
                profile = found[*key, name]
                profile.distinct, profile.sketch = held[f"distinct_{name}"][n], bytes(held[f"sketch_{name}"][n])
    for by_key in by_category:
        for key, categories_here in by_key.items():
            found[key].categories = _most_frequent(categories_here)
            found[key].distinct = len(categories_here)
    for summaries in asked.by_number:
        for key, (raw, scaled) in summaries.items():
            found[key].raw, found[key].scaled = raw, scaled
    return found


def _counted(counted: pa.Table, contract: Contract) -> Profiles:
    """A profile of each column with its rows and nulls."""
    sums = [name for name in counted.column_names if name == "records" or name.startswith("nulls_")]
    whole = counted.set_column(counted.column_names.index("slice"), "slice", pa.array([ALL] * len(counted), pa.string()))
    rows = pa.concat_tables([counted.cast(whole.schema), whole]).group_by(["window", "slice"]).aggregate([(name, "sum") for name in sums])
    found: Profiles = {}
    for row in rows.to_pylist():
        for name in contract.field_names:
            records = row["records_sum"]
            distinct = records if name == contract.id_field else None
            profile = ColumnProfile(row["window"], row["slice"], name, records, row.get(f"nulls_{name}_sum", 0), distinct)
            found[profile.key] = profile
    return found


def _categories_of_slices(found: Profiles, name: str) -> dict[tuple[int, str, str], dict[str, int]]:
    """The slice field's own values are counted already."""
    out: dict[tuple[int, str, str], dict[str, int]] = {}
    for (window, slice_name, column), profile in found.items():
        if column == name and slice_name != ALL and profile.records > profile.nulls:
            for part in (slice_name, ALL):
                out.setdefault((window, part, name), {})[slice_name] = profile.records - profile.nulls
    return out


def _category_counts(silver: DataFrame, name: str, contract: Contract, shape: Shape) -> dict[tuple[int, str, str], dict[str, int]]:
    out: dict[tuple[int, str, str], dict[str, int]] = {}
    rows = category_counts(silver, name, contract, shape).toArrow().to_pydict()
    for window, slice_name, category, records in zip(*(rows[key] for key in ("window", "slice", "category", "records")), strict=True):
        for part in (slice_name, ALL):
            here = out.setdefault((window, part, name), {})
            here[category] = here.get(category, 0) + records
    return out


def _summaries(silver: DataFrame, name: str, contract: Contract, shape: Shape) -> dict[tuple[int, str, str], tuple[Summary, Summary]]:
    """The summaries of one number, raw and scaled."""
    edges = np.array(shape.edges.get(name, ()))
    found: dict[tuple[int, str, str], tuple[Summary, Summary]] = {}
    for window, slice_name, rows in by_window_and_slice(bins(silver, name, contract, shape).toArrow()):
        lowest, highest = rows["lowest"].min(), rows["highest"].max()
        raw = scaled = _summary(edges, rows, "", lowest, highest)
        if name in shape.scales:
            scaled = _summary(shape.scaled(name, edges), rows, "scaled_", *shape.scaled(name, np.array([lowest, highest])))
        before = found.get((window, ALL, name))
        found[window, slice_name, name] = (raw, scaled)
        found[window, ALL, name] = (before[0].merge(raw), before[1].merge(scaled)) if before else (raw, scaled)
    return found


def by_window_and_slice(rows: pa.Table) -> Iterator[tuple[int, str, dict[str, np.ndarray]]]:
    """(window, slice, the other columns of its rows), in order."""
    if not len(rows):
        return
    rows = rows.sort_by([("window", "ascending"), ("slice", "ascending")])
    windows, slices = rows["window"].to_numpy(), np.array(rows["slice"].to_pylist(), dtype=object)
    columns = {name: rows[name].to_numpy() for name in rows.column_names if name not in ("window", "slice")}
    borders = np.flatnonzero((np.diff(windows) != 0) | (slices[1:] != slices[:-1])) + 1
    for begin, end in pairwise([0, *borders.tolist(), len(slices)]):
        yield int(windows[begin]), slices[begin], {name: values[begin:end] for name, values in columns.items()}


def _summary(edges: np.ndarray, rows: Mapping[str, np.ndarray], kind: str, lowest: float, highest: float) -> Summary:
    count, means, m2 = (np.zeros(len(edges) + 1) for _ in range(3))
    at = rows["bin"]
    count[at] = rows["records"]
    means[at] = rows[f"{kind}mean"]
    m2[at] = rows[f"{kind}variance"] * count[at]
    return Summary(edges, count, means, m2, float(lowest), float(highest))


def _most_frequent(counts: Mapping[str, int]) -> dict[str, int]:
    """The counts, the rarest of too many as one."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    kept = dict(ordered[:MOST_CATEGORIES])
    rest = sum(count for _, count in ordered[MOST_CATEGORIES:])
    return {**kept, OTHER: kept.get(OTHER, 0) + rest} if rest else kept


def merged(first: ColumnProfile, second: ColumnProfile) -> ColumnProfile:
    """Two profiles of one window, slice and column as one; distinct values are not merged here (SQL's hll_union does)."""

    def both(one: Summary | None, other: Summary | None) -> Summary | None:
        return one.merge(other) if one and other else one or other

    counts = [profile.categories or {} for profile in (first, second)]
    return ColumnProfile(
        *first.key,
        first.records + second.records,
        first.nulls + second.nulls,
        raw=both(first.raw, second.raw),
        scaled=both(first.scaled, second.scaled),
        categories=None
        if first.categories is None
        else {n: sum(c.get(n, 0) for c in counts) for n in dict.fromkeys([*counts[0], *counts[1]])},
    )


def to_json(one: ColumnProfile) -> dict[str, Any]:
    """A profile as JSON can hold it, without what only its own look needs."""
    raw, scaled = (summary.to_json() if summary else None for summary in (one.raw, one.scaled))
    return {"key": one.key, "records": one.records, "nulls": one.nulls, "raw": raw, "scaled": scaled, "categories": one.categories}


def from_json(held: dict[str, Any], shape: Shape) -> ColumnProfile:
    """What `to_json` wrote of a profile made by this shape."""
    window, slice_name, column = held["key"]
    edges = {"raw": shape.edges.get(column, ()), "scaled": shape.scaled_edges(column)}
    # Baselines of older versions have no `scaled`.
    kept = {name: Summary.from_json(held[name], edges[name]) if held.get(name) is not None else None for name in edges}
    counts = None if held["categories"] is None else {name: int(count) for name, count in held["categories"].items()}
    return ColumnProfile(int(window), str(slice_name), str(column), int(held["records"]), int(held["nulls"]), **kept, categories=counts)
