"""Bins over values, laid by their quantiles, and whether skewed values are better seen on a logarithmic scale."""

import numpy as np
from numpy.typing import ArrayLike

SHARES = (0.001, 0.005, 0.01, 0.025, *np.round(np.arange(0.05, 0.96, 0.05), 2).tolist(), 0.975, 0.99, 0.995, 0.999)
_BEYOND = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Further edges (`profile.BEYOND`) outside of the baseline's values, in widths of their range, so that what lies far out is told apart."""


def as_seen(values: ArrayLike, scale: float | None) -> np.ndarray:
    """Values as detectors see them: asinh(x / scale), where they are skewed."""
    return np.arcsinh(np.asarray(values) / scale) if scale else np.asarray(values)


def lay_bins(quantiles: np.ndarray) -> tuple[tuple[float, ...], float | None]:
    """Edges at these quantiles and beyond them, and the s of asinh(x / s) for skewed values (None for others)."""
    width = quantiles[-1] - quantiles[0] or max(1.0, abs(float(quantiles[0])))
    beyond = np.array(_BEYOND) * width
    edges = np.unique(np.concatenate([quantiles[0] - beyond, quantiles, quantiles[-1] + beyond]))
    low, middle, high = (float(np.interp(share, SHARES, quantiles)) for share in (0.1, 0.5, 0.9))
    scale = abs(middle) / 10
    if scale and abs(_skew(low, middle, high)) > 0.1:
        scaled = _skew(*as_seen([low, middle, high], scale))
        if abs(scaled) < abs(_skew(low, middle, high)) / 2:
            return tuple(edges.tolist()), scale
    return tuple(edges.tolist()), None


def _skew(low: float, middle: float, high: float) -> float:
    """Bowley's skewness, of deciles: 0 if both are as far from the middle."""
    return (high + low - 2 * middle) / (high - low) if high > low else 0.0
