"""What the forest sees of an event: how far each number lies from what is usual for its slice at that hour, and the time.

It is logged as the first step of the model, so that whoever loads that scores as gold does. It needs neither Spark nor this package then.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, TransformerMixin

from streaming_pipeline.detectors.bins import SHARES, as_seen, lay_bins
from streaming_pipeline.detectors.phase import DAY, HOUR, WEEK, phase

HOURS = 24
FEWEST = 50
"""Rows that tell what is usual; a slice with fewer goes by what is usual for all, an hour of it by what is usual for the slice."""
MOST_SLICES = 200
_LEAST_SPREAD = 1e-9
"""Of the middle."""
_FARTHEST = 1e6
"""Further than so many spreads is all the same: the forest calculates with 32 bits."""
_DECILE = 1.2816
"""Standard deviations from the middle of a normal distribution to its first and last decile."""


@dataclass(frozen=True, eq=False)
class Usual:
    """What is usual of one number: for all, and by cell (slice, hour), its middle and its spread below and above that.

    A spread is a standard deviation, as the distance to the first and the last decile tells it: outliers do not move it, and skewed
    values may have two.
    """

    scale: float | None
    all: np.ndarray
    by_cell: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray, cells: np.ndarray, count: int) -> "Usual":
        """Learn it from values and the cell of each; there are `count` cells, of which each 24 are a slice, the first of no slice."""
        is_there = np.isfinite(values)
        values, cells = values[is_there], cells[is_there]
        scale = lay_bins(np.quantile(values, SHARES))[1] if len(values) else None
        seen = as_seen(values, scale)
        of_all = _middle_and_spreads(seen, None)
        order = np.argsort(cells, kind="stable")
        cells, seen = cells[order], seen[order]
        by_cell = np.empty((count, 3))
        for first in range(0, count, HOURS):
            begin, end = np.searchsorted(cells, [first, first + HOURS])
            of_slice = _middle_and_spreads(seen[begin:end], of_all) if first else of_all
            for cell in range(first, first + HOURS):
                begin, end = np.searchsorted(cells, [cell, cell + 1])
                by_cell[cell] = _middle_and_spreads(seen[begin:end], of_slice)
        return cls(scale, of_all, by_cell)

    def spreads(self, values: np.ndarray, cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """How many spreads a value lies from the middle of its cell, and from that of all; 0 for one that is missing."""
        with np.errstate(over="ignore", invalid="ignore"):  # what is too far for a number is as far as can be
            seen = as_seen(values, self.scale)
            return _away(seen, *self.by_cell[cells].T), _away(seen, *self.all)

    def value(self, spreads: np.ndarray, cells: np.ndarray) -> np.ndarray:
        """The value that lies so many spreads from the middle of its cell."""
        middle, below, above = self.by_cell[cells].T
        seen = middle + spreads * np.where(spreads < 0, below, above)
        return self.scale * np.sinh(np.minimum(seen, 700)) if self.scale else seen


class EventFeatures(TransformerMixin, BaseEstimator):
    """A frame of event columns → for each number its spreads from the middle of its slice and hour and from that of all; of several
    numbers the largest of these; and the phases of the day and of the week, each if a whole one was seen: what a training has not seen of
    a week would else be strange for ever."""

    def __init__(self, slice_field: str | None = None, time: str = "timestamp_unix"):
        self.slice_field = slice_field
        self.time = time

    def fit(self, X: pd.DataFrame, y=None) -> "EventFeatures":
        """Learn what is usual from the rows of `X`: `slice_field` as it is, `time` in seconds since 1970, all others numbers."""
        self.feature_names_in_ = np.asarray(X.columns, dtype=object)
        self.n_features_in_ = X.shape[1]
        self.has_time_ = self.time in X.columns
        self.slices_ = pd.Index([])
        if self.slice_field is not None:
            counted = X[self.slice_field].value_counts()
            self.slices_ = pd.Index(sorted(counted[counted >= FEWEST].index[:MOST_SLICES]))
        cells = self.cells(X)
        count = (len(self.slices_) + 1) * HOURS
        numbers = [name for name in X.columns if name not in (self.slice_field, self.time)]
        self.usual_ = {name: Usual.of(X[name].to_numpy(np.float64), cells, count) for name in numbers}
        self.periods_: tuple[float, ...] = ()
        if self.has_time_:
            seconds = X[self.time].to_numpy(np.float64)
            self.periods_ = tuple(period for period in (DAY, WEEK) if len(X) and np.ptp(seconds) > period - HOUR)
            hours = seconds % WEEK // HOUR
            self.busiest_ = float(np.bincount(hours.astype(int), minlength=7 * HOURS).argmax() * HOUR + HOUR / 2)
        return self

    def cells(self, X: pd.DataFrame) -> np.ndarray:
        """The number of each row's slice and hour; the first 24 are those of slices that were not there, or rare, in training."""
        slices = self.slices_.get_indexer(X[self.slice_field]) + 1 if len(self.slices_) else np.zeros(len(X), dtype=np.intp)
        hours = (X[self.time].to_numpy(np.float64) % DAY // HOUR).astype(np.intp) if self.has_time_ else 0
        return slices * HOURS + hours

    def transform(self, X: pd.DataFrame) -> np.ndarray:
        """One row for each of `X`, in 32 bits."""
        cells, count = self.cells(X), len(self.usual_)
        has_largest = count > 1
        out = np.zeros((len(X), 2 * count + has_largest + 2 * len(self.periods_)), dtype=np.float32)
        for place, (name, usual) in enumerate(self.usual_.items()):
            out[:, 2 * place], out[:, 2 * place + 1] = usual.spreads(X[name].to_numpy(np.float64), cells)
        if has_largest:
            out[:, 2 * count] = np.abs(out[:, 0 : 2 * count : 2]).max(axis=1)
        for place, period in enumerate(self.periods_):
            begin = 2 * count + has_largest + 2 * place
            out[:, begin : begin + 2] = phase(X[self.time].to_numpy(np.float64), period)
        return out


def _middle_and_spreads(seen: np.ndarray, otherwise: np.ndarray | None) -> np.ndarray:
    """Middle, spread below, spread above; `otherwise` for too few values, and its spreads where there is none."""
    if otherwise is not None and len(seen) < FEWEST:
        return otherwise
    if not len(seen):
        return np.array([0.0, 1.0, 1.0])
    low, middle, high = np.quantile(seen, [0.1, 0.5, 0.9])
    spreads = np.array([middle - low, high - middle]) / _DECILE
    least = _LEAST_SPREAD * abs(middle)
    # Where nine in ten are the same: by the few that are not, and where none is not, by the value itself.
    spare = otherwise[1:] if otherwise is not None else float(np.mean(np.abs(seen - middle))) or abs(middle) * 1e-3 or 1.0
    return np.array([middle, *np.where(spreads > least, spreads, spare)])


def _away(seen: np.ndarray, middle: np.ndarray, below: np.ndarray, above: np.ndarray) -> np.ndarray:
    distance = seen - middle
    return np.clip(np.nan_to_num(distance / np.where(distance < 0, below, above), nan=0.0), -_FARTHEST, _FARTHEST)
