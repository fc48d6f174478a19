"""What is remembered of many values: numbers per bin, which merge, fade, and tell mean, spread and quantiles."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class Summary:
    """Values by bin: how many (a weight, where older ones have faded), their mean, and the sum of squared deviations from it.

    `edges` are the inner ones, ascending: bin 0 holds what is at most `edges[0]`, the last bin what is above `edges[-1]`.
    `lowest` and `highest` are the extremes, NaN without values.
    """

    edges: np.ndarray
    count: np.ndarray
    means: np.ndarray
    m2: np.ndarray
    lowest: float = np.nan
    highest: float = np.nan

    @classmethod
    def empty(cls, edges: Sequence[float] | np.ndarray) -> "Summary":
        """No values yet."""
        edges = np.asarray(edges, dtype=float)
        return cls(edges, *(np.zeros(len(edges) + 1) for _ in range(3)))

    @classmethod
    def of(cls, values: np.ndarray, edges: Sequence[float] | np.ndarray) -> "Summary":
        """The finite ones of these values."""
        values = np.asarray(values, dtype=float)
        values = values[np.isfinite(values)]
        if not len(values):
            return cls.empty(edges)
        edges = np.asarray(edges, dtype=float)
        bins = np.searchsorted(edges, values)  # left: a value on an edge belongs below it
        size = len(edges) + 1
        count = np.bincount(bins, minlength=size).astype(float)
        means = np.bincount(bins, values, size) / np.maximum(count, 1)
        m2 = np.bincount(bins, (values - means[bins]) ** 2, size)
        return cls(edges, count, means, m2, float(values.min()), float(values.max()))

    def merge(self, other: "Summary") -> "Summary":
        """Both together, bin by bin (Chan, Golub and LeVeque 1979)."""
        count = self.count + other.count
        share = np.divide(other.count, count, out=np.zeros_like(count), where=count > 0)
        delta = other.means - self.means
        m2 = self.m2 + other.m2 + delta**2 * self.count * share
        lowest, highest = np.fmin(self.lowest, other.lowest), np.fmax(self.highest, other.highest)
        return Summary(self.edges, count, self.means + delta * share, m2, float(lowest), float(highest))

    def faded(self, weight: float) -> "Summary":
        """The same values with this weight (0 to 1)."""
        return Summary(self.edges, self.count * weight, self.means, self.m2 * weight, self.lowest, self.highest)

    def within(self, low: float, high: float) -> "Summary":
        """Without the bins whose mean lies outside of low..high, as what is flagged is not learnt from."""
        keep = (self.means >= low) & (self.means <= high)
        parts = (np.where(keep, part, 0) for part in (self.count, self.means, self.m2))
        return Summary(self.edges, *parts, float(np.fmax(self.lowest, low)), float(np.fmin(self.highest, high)))

    @property
    def records(self) -> float:
        """How many values, or their weight."""
        return float(self.count.sum())

    @property
    def mean(self) -> float:
        """Their mean; NaN without values."""
        return float(self.count @ self.means / self.records) if self.records else np.nan

    @property
    def variance(self) -> float:
        """Their variance (of the values themselves, not of a population they stand for); NaN without values."""
        if not self.records:
            return np.nan
        return float((self.m2.sum() + self.count @ (self.means - self.mean) ** 2) / self.records)

    @property
    def std(self) -> float:
        """The root of the variance."""
        return float(np.sqrt(self.variance))

    def quantile(self, q: float) -> float:
        """The value below which the share `q` lies: its rank is wrong by less than the share of the bin that it is in."""
        return float(self.quantiles([q])[0])

    def quantiles(self, shares: Sequence[float]) -> np.ndarray:
        """Several of them."""
        if not self.records:
            return np.full(len(shares), np.nan)
        places, upto = self._line()
        return np.interp(shares, upto, places)

    def mad(self) -> float:
        """The median of the distances from the median."""
        if not self.records:
            return np.nan
        places, shares = self._line()
        median = np.interp(0.5, shares, places)
        # Between these distances the share within a distance of the median is a straight line.
        distances = np.unique(np.abs(places - median))
        within = np.interp(median + distances, places, shares) - np.interp(median - distances, places, shares, left=0.0)
        return float(np.interp(0.5, within, distances))

    def _line(self) -> tuple[np.ndarray, np.ndarray]:
        """Places and the share of values up to each; both rise."""
        held = np.flatnonzero(self.count)
        first, last = held[0], held[-1]
        inner = self.edges[first:last]
        # Edges of empty bins at the ends are left out: what lies between the extremes is all there is.
        places = np.concatenate([[self.lowest], np.clip(inner, self.lowest, self.highest), [self.highest]])
        shares = np.concatenate([[0.0], np.cumsum(self.count)[first:last], [self.records]]) / self.records
        return places, shares

    def to_json(self) -> dict[str, Any]:
        """As JSON can hold it; numbers of empty bins are left out."""
        held = np.flatnonzero(self.count)
        columns = [held.tolist(), *(part[held].tolist() for part in (self.count, self.means, self.m2))]
        return {"bins": columns, "lowest": self.lowest, "highest": self.highest} if len(held) else {}

    @classmethod
    def from_json(cls, held: dict[str, Any], edges: Sequence[float] | np.ndarray) -> "Summary":
        """What `to_json` wrote of a summary with these edges."""
        summary = cls.empty(edges)
        if not held:
            return summary
        bins, *parts = held["bins"]
        for part, values in zip((summary.count, summary.means, summary.m2), parts, strict=True):
            part[bins] = values
        return cls(summary.edges, summary.count, summary.means, summary.m2, float(held["lowest"]), float(held["highest"]))
