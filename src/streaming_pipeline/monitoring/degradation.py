"""Does the pipeline itself do worse than it used to? Figures of each look against those of the looks before it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import median_abs_deviation

THRESHOLD = 6.0
MOST_LOOKS = 60
ENOUGH_LOOKS = 10
"""With fewer looks before it nothing is usual yet."""
MIN_RECORDS = 100
_SIMILAR = 3


@dataclass(frozen=True)
class Figure:
    """A figure: which way is worse, and the least change that matters, as a difference and as a factor."""

    worse: int
    difference: float
    factor: float = 1.0
    is_share: bool = True
    """Per cent of some records, which chance alone moves."""


FIGURES = {
    "silver_yield_pct": Figure(-1, 1.0),
    "late_pct": Figure(1, 1.0, 2.0),
    "lateness_p95_seconds": Figure(1, 60.0, 2.0, is_share=False),
    "silver_records_per_second": Figure(-1, 0.0, 2.0, is_share=False),
    "flag_rate_pct": Figure(1, 0.5, 2.0),
    "outlier_pct": Figure(1, 0.5, 2.0),
}
"""Name in `monitor_logs.figures` → what is worse."""


@dataclass(frozen=True)
class Worse:
    """A figure that is worse than usual."""

    name: str
    observed: float
    usual: float
    score: float


@dataclass(frozen=True)
class Figures:
    """The figures of a look, by name, and of how many records each is."""

    values: Mapping[str, float]
    records: Mapping[str, int]


def judge_figures(now: Figures, history: Sequence[Figures]) -> list[Worse]:
    """Figures of a look against those of earlier looks, the newest first.

    A rate is held against looks at about as many records alone: of a few, most of the time is what any run takes.
    """
    found = []
    for name, figure in FIGURES.items():
        records = now.records.get(name, 0)
        like = (one for one in history[:MOST_LOOKS] if name in one.values and _is_like(figure, one.records[name], records))
        past = np.array([one.values[name] for one in like])
        if records < MIN_RECORDS or len(past) < ENOUGH_LOOKS:
            continue
        observed, usual = now.values[name], float(np.median(past))
        if figure.is_share:
            scale = median_abs_deviation(past, scale="normal")
            share = min(max(usual / 100, 1 / records), 1 - 1 / records)
            least = max(100 * np.sqrt(share * (1 - share) / records), figure.difference / THRESHOLD)
            distance = observed - usual
        else:
            # Rates and times are as far apart as their ratio says.
            scale, least = median_abs_deviation(_logarithm(past), scale="normal"), np.log(figure.factor) / THRESHOLD
            distance = float(_logarithm(observed) - _logarithm(usual))
        score = figure.worse * distance / max(scale, least)
        low, high = sorted((observed, usual))
        if score >= THRESHOLD and high - low >= figure.difference and high >= figure.factor * low:
            found.append(Worse(name, observed, usual, float(score)))
    return found


def _is_like(figure: Figure, records: int, records_now: int) -> bool:
    return figure.is_share or records_now / _SIMILAR <= records <= records_now * _SIMILAR


def _logarithm(values: np.ndarray | float) -> np.ndarray:
    """ln(1 + x) of what may also be 0, or below it."""
    return np.log1p(np.maximum(values, 0.0))
