"""Do several columns lie elsewhere than they used to, taken together? Hotelling's T² (1947), of recent rows and of their mean."""

import numpy as np
from sklearn.covariance import ledoit_wolf

from streaming_pipeline.detectors.change import moving_mean

ROWS = 10
LEAST = 3 * ROWS
"""Training rows without which nothing can be said."""
BEGIN, END = 1.0, 0.8
"""A fault begins where the strength reaches the first, and lasts until it is below the second."""
_FITTED = 0.6
"""Of the training rows these are learnt from to find out what is usual in the others."""
_USUAL = 0.99
_FARTHEST = 20.0


def faults(values: np.ndarray, train: int) -> tuple[np.ndarray, np.ndarray]:
    """(strength, flags) of each row: 1 is what one in a hundred held-out training rows exceeds. Flags stay up while the fault lasts.

    Half of the strength are the last `ROWS` rows' own distances (root mean square), half is that of their mean; Mahalanobis, by shrunk
    covariances (Ledoit and Wolf 2004). What is no fault moves the centre, with the training's rows as half-life: rigs warm up.
    """
    strength, flags = np.zeros(len(values)), np.zeros(len(values), dtype=bool)
    if train < LEAST:
        return strength, flags
    fitted = max(2 * ROWS, int(_FITTED * train))
    held_out = _Distances(values[:train], fitted)
    usual = np.quantile(np.array([held_out.at(row, held_out.centre) for row in range(fitted, train)]), _USUAL, axis=0)
    usual = np.maximum(usual, 1e-9)
    distances = _Distances(values, train)
    centre, weight, is_up = distances.centre, 1 - 0.5 ** (1 / train), False
    for row in range(train, len(values)):
        strength[row] = (distances.at(row, centre) / usual).mean()
        is_up = strength[row] >= (END if is_up else BEGIN)
        flags[row] = is_up
        if not is_up:
            centre = centre + weight * (distances.values[row] - centre)
    return strength, flags


class _Distances:
    """Rows scaled by the first `fitted` of them, and how far they are from a centre."""

    def __init__(self, values: np.ndarray, fitted: int) -> None:
        low, middle, high = np.quantile(values[:fitted], [0.25, 0.5, 0.75], axis=0)
        spread, deviation = (high - low) / 1.349, values[:fitted].std(axis=0)
        scale = np.where(spread > deviation / 1000, spread, np.where(deviation > 0, deviation, 1.0))
        self.values = np.clip((values - middle) / scale, -_FARTHEST, _FARTHEST)
        self.means = moving_mean(self.values, ROWS)
        self.centre = self.values[:fitted].mean(axis=0)
        self._of_rows = _inverse(self.values[:fitted])
        self._of_means = _inverse(self.means[ROWS - 1 : fitted])

    def at(self, row: int, centre: np.ndarray) -> np.ndarray:
        """(distance of the last rows, distance of their mean), per root of the number of columns."""
        away = self.values[max(0, row - ROWS + 1) : row + 1] - centre
        mean = self.means[row] - centre
        of_rows = np.einsum("ij,jk,ik->i", away, self._of_rows, away)
        squares = np.array([of_rows.mean(), mean @ self._of_means @ mean]) / self.values.shape[1]
        return np.sqrt(np.maximum(squares, 0))


def _inverse(rows: np.ndarray) -> np.ndarray:
    covariance, _ = ledoit_wolf(rows)
    return np.linalg.inv(covariance + 1e-6 * np.eye(rows.shape[1]))
