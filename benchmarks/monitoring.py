"""How often is monitoring right? False alarms of each detector on streams without a fault, and what drift tests find; numpy alone.

Values: 1,000 events an hour for two weeks, the first 72 hours as the baseline, of several kinds. Arrivals: clean weeks of the generator.
Drift: windows against a baseline, each run judged on its own as a look judges it.
"""

import argparse
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import numpy as np
from bench import table, write_section

from streaming_pipeline.detectors import DETECTORS, gap
from streaming_pipeline.detectors.bins import SHARES, lay_bins
from streaming_pipeline.detectors.summary import Summary
from streaming_pipeline.events import synthetic
from streaming_pipeline.monitoring import degradation, drift
from streaming_pipeline.monitoring.arrivals import Watch
from streaming_pipeline.monitoring.profile import ALL, ColumnProfile, Shape
from streaming_pipeline.monitoring.values import ColumnMemory

PER_HOUR, HOURS, BASELINE_HOURS = 1_000, 14 * 24, 72
KINDS: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "Gaussian": lambda rng, n: rng.normal(100, 10, n),
    "lognormal (σ 0.3)": lambda rng, n: rng.lognormal(7, 0.3, n),
    "lognormal (σ 1)": lambda rng, n: rng.lognormal(7, 1.0, n),
    "exponential": lambda rng, n: rng.exponential(50, n),
    "Student's t (5)": lambda rng, n: 100 + 10 * rng.standard_t(5, n),
}
FINDS = {
    "zscore": "a value far from the mean",
    "robust_zscore": "a value far from the median, also among many that are",
    "iqr": "a value far outside of the quartiles",
    "moving_average": "a value far from the mean of the last hours",
}


def flagged_values(kind: str, runs: int) -> Counter:
    """How many values each detector flags behind the baseline, over all runs."""
    flagged: Counter = Counter()
    for seed in range(runs):
        rng = np.random.default_rng([seed, list(KINDS).index(kind)])
        values = KINDS[kind](rng, PER_HOUR * HOURS).reshape(HOURS, PER_HOUR)
        edges, scale = lay_bins(np.quantile(values[:BASELINE_HOURS], SHARES))
        shape = Shape(60, (), {"value": edges}, {"value": scale} if scale else {})
        memory = ColumnMemory(shape.scaled("value", np.array(edges)))
        for hour in range(HOURS):
            seen = shape.scaled("value", values[hour])
            profile = ColumnProfile(hour, ALL, "value", PER_HOUR, 0, scaled=Summary.of(seen, memory.edges))
            fences = memory.fences(profile, hour % 24)
            if hour >= BASELINE_HOURS:
                for fence in fences:
                    flagged[fence.detector] += int((np.abs(seen - fence.centre) >= fence.threshold * fence.scale).sum())
            memory.learn(profile.scaled, fences, hour % 24, 60)
    return flagged


def false_arrivals(count: int, runs: int) -> Counter:
    """Findings of each detector in clean fortnights of the generator."""
    found: Counter = Counter()
    for seed in range(runs):
        start = datetime(2026, 3, 1 + seed % 7, tzinfo=UTC)
        events = synthetic.generate(count, seed=seed, start=start, duration=timedelta(days=14), faults=[])
        minutes, counts = np.unique(events.arrival_ms // 60_000, return_counts=True)
        held = dict(zip(minutes.tolist(), counts.tolist(), strict=True))
        found.update(one.detector for one in Watch().judge(ALL, held, int(minutes.max())))
    return found


def share_of_alarms(shift: float, columns: int, rows: int, runs: int) -> float:
    """The share of runs in which any of so many columns drifts, each a window of so many rows against 10,000."""
    rng = np.random.default_rng([7, columns])
    alarms = 0
    for _ in range(runs):
        pairs = []
        for column in range(columns):
            then = rng.standard_normal(10_000)
            edges = lay_bins(np.quantile(then, SHARES))[0]
            now, before = (
                ColumnProfile(0, ALL, str(column), len(values), 0, raw=Summary.of(values, edges))
                for values in (rng.normal(shift, 1, rows), then)
            )
            pairs.append(drift.Pair(now, before, "baseline"))
        alarms += any(one.is_drift for one in drift.compare(pairs))
    return alarms / runs


def false_degradations(records: int, looks: int) -> Counter:
    """Figures that are called worse, of a pipeline in which nothing but chance changes, each look judged by the 60 before it."""
    rng, found = np.random.default_rng(records), Counter()
    shares = {"silver_yield_pct": 99.5, "late_pct": 0.5, "flag_rate_pct": 1.0, "outlier_pct": 0.4}
    others = {"lateness_p95_seconds": 20.0, "silver_records_per_second": 40_000.0}
    history: list[degradation.Figures] = []
    for _ in range(looks):
        figures = {name: 100 * rng.binomial(records, share / 100) / records for name, share in shares.items()}
        figures |= {name: usual * rng.lognormal(0, 0.2) for name, usual in others.items()}
        now = degradation.Figures(figures, dict.fromkeys(figures, records))
        found.update(worse.name for worse in degradation.judge_figures(now, history))
        history = [now, *history[: degradation.MOST_LOOKS - 1]]
    return found


def main() -> None:
    """Run all, and write the section of RESULTS.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1_000, help="of each drift test")
    options = parser.parse_args()
    runs = 5
    judged = runs * PER_HOUR * (HOURS - BASELINE_HOURS)
    flagged = {kind: flagged_values(kind, runs) for kind in KINDS}
    values = [
        [name, FINDS[name], detector.THRESHOLD, *(f"{1e6 * flagged[kind][name] / judged:.1f}" for kind in KINDS)]
        for name, detector in DETECTORS.items()
    ]
    volumes, fortnights = (60_000, 300_000, 2_000_000), 20
    clean = {volume: false_arrivals(volume, fortnights) for volume in volumes}
    arrivals = [[name, *(clean[volume][name] for volume in volumes)] for name in (*DETECTORS, gap.__name__.rsplit(".", 1)[1])]
    drifts = [
        ["0.5 σ, 1,000 rows, one column", "≥ 99 %", f"{100 * share_of_alarms(0.5, 1, 1_000, options.runs):.1f} %"],
        ["0.25 σ, 1,000 rows, one column (too small to matter)", "", f"{100 * share_of_alarms(0.25, 1, 1_000, options.runs):.1f} %"],
        ["no drift, 1,000 rows, 20 columns", "≤ 1 %", f"{100 * share_of_alarms(0.0, 20, 1_000, options.runs):.1f} %"],
        ["no drift, 200 rows, 20 columns", "≤ 1 %", f"{100 * share_of_alarms(0.0, 20, 200, options.runs):.1f} %"],
    ]
    sizes, looks = (100, 2_000, 100_000), 20_000
    worse = {size: false_degradations(size, looks) for size in sizes}
    figures = [[name, *(worse[size][name] for size in sizes)] for name in degradation.FIGURES]
    write_section(
        "Monitoring",
        f"Values flagged of a million that have no fault ({judged:,} judged of each kind):\n\n"
        + table(["detector", "finds", "threshold", *KINDS], values)
        + f"\n\nFindings about arrivals in {fortnights} fortnights without a fault, by events in a fortnight:\n\n"
        + table(["detector", *(f"{volume:,}" for volume in volumes)], arrivals)
        + f"\n\nShare of {options.runs:,} runs that raise a drift alarm:\n\n"
        + table(["a window against 10,000 rows", "goal", "measured"], drifts)
        + f"\n\nFigures called worse in {looks:,} looks of a pipeline in which nothing but chance changes, by events in a look:\n\n"
        + table(["figure", *(f"{size:,}" for size in sizes)], figures),
    )


if __name__ == "__main__":
    main()
