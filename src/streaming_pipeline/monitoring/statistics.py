"""Statistics of drift, each for many pairs of samples at once: the last axis of counts is bins or categories, the others are pairs."""

import numpy as np
from scipy import special, stats


def psi(now: np.ndarray, then: np.ndarray) -> np.ndarray:
    """Population stability index, Σ (p - q) ln(p / q), of shares smoothed as (count + 0.5) / (n + 0.5 bins).

    >>> float(psi(np.array([30, 70]), np.array([50, 50])).round(4))
    0.1659
    """
    bins = now.shape[-1]
    p, q = ((counts + 0.5) / (counts.sum(axis=-1, keepdims=True) + 0.5 * bins) for counts in (now, then))
    return ((p - q) * np.log(p / q)).sum(axis=-1)


def ks(now: np.ndarray, then: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Kolmogorov and Smirnov's statistic between two samples in bins, and its p-value for large samples.

    The statistic is the largest distance of the two distributions at an edge, so at most what it is without bins.

    >>> statistic, p_value = ks(np.array([60, 40]), np.array([40, 60]))
    >>> float(statistic.round(4)), float(p_value.round(4))
    (0.2, 0.0366)
    """
    n, m = now.sum(axis=-1), then.sum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        statistic = np.abs(now.cumsum(axis=-1) / n[..., None] - then.cumsum(axis=-1) / m[..., None]).max(axis=-1)
        return statistic, special.kolmogorov(statistic * np.sqrt(n * m / (n + m)))


def chi_squared(now: np.ndarray, then: np.ndarray) -> np.ndarray:
    """p-value of Pearson's test that two rows of counts come from one distribution; bins that both lack do not count."""
    both = now + then
    n, m = now.sum(axis=-1, keepdims=True), then.sum(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        # For two rows: (now_i m - then_i n)² / (n m (now_i + then_i)), summed.
        terms = (now * m - then * n) ** 2 / (n * m * both)
    statistic = np.where(both > 0, terms, 0).sum(axis=-1)
    freedom = (both > 0).sum(axis=-1) - 1
    return np.where(freedom > 0, stats.chi2.sf(statistic, np.maximum(freedom, 1)), 1.0)


def mean_shift(
    mean_now: np.ndarray, var_now: np.ndarray, n: np.ndarray, mean_then: np.ndarray, var_then: np.ndarray, m: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """By how many standard deviations of `then` the mean moved, and the p-value of Welch's test for large samples."""
    with np.errstate(invalid="ignore", divide="ignore"):
        shift = (mean_now - mean_then) / np.sqrt(var_then)
        z = (mean_now - mean_then) / np.sqrt(var_now / n + var_then / m)
    # Two constants that are the same have not moved, two that differ have for certain.
    same = mean_now == mean_then
    return np.where(same, 0.0, shift), np.where(same, 1.0, 2 * stats.norm.sf(np.abs(z)))


def share_change(k: np.ndarray, n: np.ndarray, k_then: np.ndarray, m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Difference of the shares k / n and k_then / m, and the p-value of the pooled test of two proportions."""
    with np.errstate(invalid="ignore", divide="ignore"):
        change = k / n - k_then / m
        pooled = (k + k_then) / (n + m)
        z = change / np.sqrt(pooled * (1 - pooled) * (1 / n + 1 / m))
    return change, np.where(change == 0, 1.0, 2 * stats.norm.sf(np.abs(z)))


def adjusted(p_values: np.ndarray) -> np.ndarray:
    """p-values adjusted for their number (Benjamini and Hochberg 1995), NaN where there is none."""
    out = np.full(p_values.shape, np.nan)
    known = ~np.isnan(p_values)
    if known.any():
        out[known] = stats.false_discovery_control(p_values[known])
    return out
