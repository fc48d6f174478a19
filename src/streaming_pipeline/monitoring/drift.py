"""Did a column change against its baseline, or against the window before? Numbers, significance and size of each change, window by window.

An alarm needs all three: enough rows, a p-value that survives the number of tests (Benjamini and Hochberg), and an effect that is large
enough to matter. Windows are compared with the same time of day of the baseline, since much changes with it each day.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np

from streaming_pipeline.detectors.summary import Summary
from streaming_pipeline.monitoring import statistics
from streaming_pipeline.monitoring.baseline import GOLD, MIN_RECORDS, SILVER
from streaming_pipeline.monitoring.profile import ALL, ColumnProfile, Profiles

ALPHA = 0.001
"""Of a look. An hourly stream has 168 looks a week."""
_OUTER = 0.01
THRESHOLDS = {
    "psi": (0.1, 0.25),
    "ks": (0.15, 0.25),
    "mean_shift": (0.3, 1.0),
    "std_ratio": (1.4, 2.0),
    "category_psi": (0.25, 0.5),
    "null_pct_change": (1.0, 10.0),
}
"""Metric → from which size on a change is a warning, and critical. Mean in standard deviations, nulls in percentage points."""
DRIFTED_COLUMNS = "drifted_columns_pct"


@dataclass(eq=False)
class Drift:
    """One row of `drift_metrics`. `is_drift` and `severity` are None where too few rows let nobody say."""

    window: int
    slice: str
    column: str
    comparison: str
    metric: str
    value: float | None
    p_value: float | None
    threshold: float
    records: int
    compared_records: int
    is_drift: bool | None = None
    severity: str | None = None
    table_name: str = SILVER
    window_minutes: int | None = None
    """Of its window; None: as the look has them."""
    baseline_id: int | None = None
    """None: the one in force."""
    detail: str | None = None
    """Of a retyped field: from which type to which."""


def kind_of(table_name: str, metric: str) -> str:
    """What a row of `drift_metrics` that is drift is counted as, and told of: schema_change, drift, or concept_drift of scores."""
    if metric.startswith("schema_"):
        return "schema_change"
    return "concept_drift" if table_name == GOLD else "drift"


@dataclass(frozen=True)
class Pair:
    """A window and what it is compared with."""

    now: ColumnProfile
    then: ColumnProfile
    comparison: str
    table_name: str = SILVER
    window_minutes: int | None = None
    baseline_id: int | None = None


Slices = Mapping[tuple[str, str], ColumnProfile]
"""(slice, column) → profile, of one window."""


def pairs(windows: Iterable[int], profiles: Profiles, baseline: Profiles, buckets: int) -> list[Pair]:
    """Each window of each slice and column beside the baseline of its time of day (`baseline` is keyed by it), and beside the window
    before it."""
    out = []
    wanted = set(windows)
    slices, slices_of_baseline = _slices(profiles), _slices(baseline)
    for (window, slice_name, column), now in sorted(profiles.items()):
        if window not in wanted:
            continue
        for comparison, reference, parts, place in (
            ("baseline", baseline, slices_of_baseline, window % buckets),
            ("previous", profiles, slices, window - 1),
        ):
            then = reference.get((place, slice_name, column))
            if then is not None:
                out.append(Pair(now, _in_the_mix_of(now, then, slices.get(window, {}), parts.get(place, {})), comparison))
    return out


def _slices(profiles: Profiles) -> dict[int, Slices]:
    """The profiles of each window but those of all slices together."""
    out: dict[int, dict[tuple[str, str], ColumnProfile]] = {}
    for (window, slice_name, column), one in profiles.items():
        if slice_name != ALL:
            out.setdefault(window, {})[slice_name, column] = one
    return out


def _in_the_mix_of(now: ColumnProfile, then: ColumnProfile, slices_now: Slices, slices_then: Slices) -> ColumnProfile:
    """For all slices together: `then` with its slices in the shares that they have now, so that a change of the mix alone, which
    `category_psi` tells of, is no drift of every number. (Direct standardisation; its weight is the effective sample size, Kish 1965.)"""
    if now.slice != ALL or now.raw is None or then.raw is None:
        return then
    parts = [(slices_now[key], slices_then.get(key)) for key in slices_now if key[1] == now.column and slices_now[key].raw is not None]
    if len(parts) < 2 or any(old is None or old.raw is None or old.raw.records < 1 for _, old in parts):
        return then
    weights = np.array([new.raw.records / old.raw.records for new, old in parts])
    sizes = np.array([old.raw.records for _, old in parts])
    weights *= (weights @ sizes) / (weights**2 @ sizes)
    mixed = reduce(Summary.merge, [old.raw.faded(weight) for weight, (_, old) in zip(weights.tolist(), parts, strict=True)])
    return replace(then, raw=mixed)


def compare(compared: Sequence[Pair]) -> list[Drift]:
    """Every metric of every pair, judged together."""
    found = [*_numbers(compared), *_categories(compared), *_nulls(compared)]
    _judge(found)
    return [*found, *_drifted_columns(found)]


def deciles(counts: np.ndarray) -> np.ndarray:
    """Which of at most ten groups of about equal size in these counts each bin belongs to."""
    total = counts.sum()
    middle = np.cumsum(counts) - counts / 2
    return np.clip((10 * middle / total).astype(int), 0, 9) if total else np.zeros(len(counts), dtype=int)


def _numbers(compared: Sequence[Pair]) -> list[Drift]:
    chosen = [pair for pair in compared if pair.now.raw and pair.then.raw and len(pair.now.raw.count) == len(pair.then.raw.count) > 1]
    out: list[Drift] = []
    by_size: dict[int, list[Pair]] = {}
    for pair in chosen:
        by_size.setdefault(len(pair.now.raw.count), []).append(pair)
    for same in by_size.values():
        now, then = (np.array([getattr(pair, side).raw.count for pair in same]) for side in ("now", "then"))
        groups = np.array([deciles(row) for row in then])
        now10, then10 = (_grouped(counts, groups) for counts in (now, then))
        n, m = now.sum(axis=1), then.sum(axis=1)
        mean, variance, mean_then, variance_then = (np.array(column) for column in zip(*map(_winsorized, same), strict=True))
        distance, ks_p = statistics.ks(now, then)
        bins_p = statistics.chi_squared(now10, then10)
        shift, shift_p = statistics.mean_shift(mean, variance, n, mean_then, variance_then, m)
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = np.sqrt(variance / variance_then)
        for metric, values, p_values in (
            ("psi", statistics.psi(now10, then10), bins_p),
            ("ks", distance, ks_p),
            ("mean_shift", shift, shift_p),
            # Whether the shape changed the bins say.
            ("std_ratio", ratio, bins_p),
        ):
            out += [_row(pair, metric, value, p, a, b) for pair, value, p, a, b in zip(same, values, p_values, n, m, strict=True)]
    return out


def _winsorized(pair: Pair) -> tuple[float, float, float, float]:
    """Mean and variance of both sides, what lies beyond the outer hundredths of `then` brought to these: a few values far out would
    move the moments of any sample."""
    then = pair.then.raw
    upto = np.cumsum(then.count) / max(then.records, 1)
    low = then.edges[min(np.searchsorted(upto, _OUTER), len(then.edges) - 1)]
    high = then.edges[min(np.searchsorted(upto, 1 - _OUTER), len(then.edges) - 1)]
    moments = []
    for side in (pair.now.raw, then):
        outside = (side.means < low) | (side.means > high)
        means, m2 = np.clip(side.means, low, high), np.where(outside, 0.0, side.m2)
        mean = side.count @ means / max(side.records, 1)
        moments += [mean, (m2.sum() + side.count @ (means - mean) ** 2) / max(side.records, 1)]
    return tuple(moments)


def _grouped(counts: np.ndarray, groups: np.ndarray) -> np.ndarray:
    out = np.zeros((len(counts), 10))
    np.add.at(out, (np.arange(len(counts))[:, None], groups), counts)
    return out


def _categories(compared: Sequence[Pair]) -> list[Drift]:
    out = []
    for pair in compared:
        if pair.now.categories is None or pair.then.categories is None:
            continue
        names = sorted({*pair.now.categories, *pair.then.categories})
        if len(names) < 2:
            continue
        now, then = (np.array([float(side.categories.get(name, 0)) for name in names]) for side in (pair.now, pair.then))
        value, p = statistics.psi(now, then), statistics.chi_squared(now, then)
        out.append(_row(pair, "category_psi", value, p, now.sum(), then.sum()))
    return out


def _nulls(compared: Sequence[Pair]) -> list[Drift]:
    if not compared:
        return []
    k, n, k_then, m = (
        np.array([float(getattr(getattr(pair, side), what)) for pair in compared])
        for side in ("now", "then")
        for what in ("nulls", "records")
    )
    change, p_values = statistics.share_change(k, n, k_then, m)
    return [
        _row(pair, "null_pct_change", 100 * value, p, a, b) for pair, value, p, a, b in zip(compared, change, p_values, n, m, strict=True)
    ]


def _row(pair: Pair, metric: str, value: float, p_value: float, n: float, m: float) -> Drift:
    window, slice_name, column = pair.now.key
    size = None if np.isnan(value) else float(value)
    threshold = THRESHOLDS[metric][0]
    of_pair = {"table_name": pair.table_name, "window_minutes": pair.window_minutes, "baseline_id": pair.baseline_id}
    return Drift(window, slice_name, column, pair.comparison, metric, size, float(p_value), threshold, round(n), round(m), **of_pair)


def _judge(found: Sequence[Drift]) -> None:
    """Say in each row whether it is drift."""
    is_known = [one.value is not None and min(one.records, one.compared_records) >= MIN_RECORDS for one in found]
    p_values = statistics.adjusted(np.array([one.p_value if known else np.nan for one, known in zip(found, is_known, strict=True)]))
    for one, known, p in zip(found, is_known, p_values.tolist(), strict=True):
        if not known:
            continue
        warning, critical = THRESHOLDS[one.metric]
        if p < ALPHA:
            size = max(one.value, 1 / one.value if one.value else np.inf) if one.metric == "std_ratio" else abs(one.value)
            one.severity = "critical" if size >= critical else "warning" if size >= warning else None
        one.p_value, one.is_drift = p, one.severity is not None


def _drifted_columns(judged: Sequence[Drift]) -> list[Drift]:
    """For each window the share of columns that drift, of all that could be judged against the baseline."""
    by_window: dict[int, dict[str, bool]] = {}
    rows: dict[int, tuple[int, int]] = {}
    for one in judged:
        if one.slice == ALL and one.comparison == "baseline" and one.is_drift is not None:
            columns = by_window.setdefault(one.window, {})
            columns[one.column] = columns.get(one.column, False) or one.is_drift
            rows[one.window] = (one.records, one.compared_records)
    return [
        Drift(window, ALL, ALL, "baseline", DRIFTED_COLUMNS, 100 * sum(c.values()) / len(c), None, 50.0, *rows[window], False)
        for window, c in sorted(by_window.items())
    ]
