"""How far is the nearest past value, and the nearest past shape? What never was like this is a discord (Yeh et al. 2016, left profile)."""

import numpy as np

from streaming_pipeline.detectors.surprise import blocks

LENGTH = 20
"""Rows of a shape."""
_LIBRARY = 2_000
"""So many past shapes are looked through at most, spread evenly over the past."""
_ROUNDING = 1e-12
"""A squared distance of less, as a share of both squares, is rounding."""


def nearest_value(values: np.ndarray) -> np.ndarray:
    """Distance to the nearest value before, but for the last `LENGTH` rows, among which neighbours are alike; NaN without any."""
    out = np.full(len(values), np.nan)
    past = np.empty(0)
    for begin, end in blocks(LENGTH + 1, len(values), most=LENGTH):
        new = np.sort(values[len(past) : begin - LENGTH])
        past = np.insert(past, np.searchsorted(past, new), new)
        place = np.searchsorted(past, values[begin:end])
        below = past[np.maximum(place - 1, 0)]
        above = past[np.minimum(place, len(past) - 1)]
        out[begin:end] = np.minimum(np.abs(values[begin:end] - below), np.abs(values[begin:end] - above))
    return out


def nearest_shape(values: np.ndarray) -> np.ndarray:
    """Distance (root mean square) of the last `LENGTH` values, less their mean, to the nearest such run of rows before it; NaN without."""
    rows = len(values)
    out = np.full(rows + LENGTH, np.nan)
    if rows < 3 * LENGTH:
        return out[:rows]
    # How sums are rounded may depend on a block's shape: with rows behind the end the last block is as whole as any.
    runs = np.lib.stride_tricks.sliding_window_view(np.concatenate([values, np.zeros(LENGTH)]), LENGTH)
    runs = runs - runs.mean(axis=1, keepdims=True)
    squares = (runs**2).sum(axis=1)
    for begin, end in blocks(2 * LENGTH, rows + LENGTH, most=LENGTH):
        # The run that ends in row t begins in row t - LENGTH + 1; those of the library end before the first row of these.
        last = begin - 2 * LENGTH + 1
        library = np.arange(last - 1, -1, -max(1, -(-last // _LIBRARY)))
        here = slice(begin - LENGTH + 1, end - LENGTH + 1)
        # No matrix product, which is rounded by the number of threads, and whose threads are in each other's way at this size.
        both = squares[here, None] + squares[library]
        distances = both - 2 * np.einsum("ik,jk->ij", runs[here], runs[library])
        # What is 0 but for rounding is 0, or noise would decide which of two repetitions is the stranger.
        out[begin:end] = np.sqrt(np.where(distances > _ROUNDING * both, distances, 0).min(axis=1) / LENGTH)
    return out[:rows]
