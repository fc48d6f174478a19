"""Did the recent rows change their manner: how much they move, and where they lie?"""

import numpy as np

ROWS = 20


def moving_mean(values: np.ndarray, rows: int) -> np.ndarray:
    """Mean over the last `rows` rows (of each column), of fewer at the beginning."""
    sums = np.concatenate([np.zeros_like(values[:1]), np.cumsum(values, axis=0)])
    ends = np.arange(1, len(values) + 1)
    begins = np.maximum(0, ends - rows)
    shape = (-1,) + (1,) * (values.ndim - 1)
    return (sums[ends] - sums[begins]) / (ends - begins).reshape(shape)


def movement(values: np.ndarray, train: int) -> np.ndarray:
    """How far the recent steps from row to row (their root mean square, as a logarithm) are from what is usual in training: a series that
    stands still is as strange as one that shakes."""
    steps = np.abs(np.diff(values, prepend=values[:1]))
    usual = np.median(steps[:train]) + 1e-3 * (values[:train].std() + 1e-12)
    size = np.log(np.sqrt(np.maximum(moving_mean(steps**2, ROWS), 0)) / usual + 0.05)
    return np.abs(size - np.median(size[min(ROWS, train - 1) : train]))


def jump(values: np.ndarray) -> np.ndarray:
    """How far the mean of the recent rows is from that of as many rows before them."""
    means = moving_mean(values, ROWS)
    return np.abs(means - np.concatenate([np.full(min(ROWS, len(means)), means[0]), means[:-ROWS]])[: len(means)])
