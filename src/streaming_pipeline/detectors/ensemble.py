"""Several kinds of strangeness of one column, as one score and few alarms."""

from collections.abc import Mapping

import numpy as np

from streaming_pipeline.detectors.surprise import surprise

THRESHOLD = 4.15
_FADING = 0.1
_QUIET, _LOUDER = 0.15, 1.75
"""After an alarm there is none for so many of the training rows, but for one of so many times the largest strength since."""


def combined(deviations: Mapping[str, np.ndarray], train: int) -> np.ndarray:
    """The strength of each row, 1 at the threshold: how surprising its deviations are against the past of each, one that stands out
    alone as well as several together (mean of fourth powers), and twice how surprising the rows before it were: what is wrong lasts."""
    each = np.array([surprise(one, train // 2) for one in deviations.values()])
    at_once = np.mean(each**4, axis=0) ** 0.25
    together = np.sqrt(np.mean(each**2, axis=0))
    lasting = np.empty(len(together))
    level = 0.0
    for row, value in enumerate(together.tolist()):
        level += _FADING * (value - level)
        lasting[row] = level
    return (at_once + 2 * lasting) / THRESHOLD


def alarms(strength: np.ndarray, train: int) -> np.ndarray:
    """Rows to tell somebody of: those that reach the threshold while nobody was told of another for a while, or that are far stronger
    than any row since."""
    flags = np.zeros(len(strength), dtype=bool)
    quiet, next_row, strongest = max(1, int(_QUIET * train)), train, 0.0
    for row in (train + np.flatnonzero(strength[train:] >= 1)).tolist():
        if row >= next_row or strength[row] >= _LOUDER * strongest:
            flags[row] = True
            next_row, strongest = row + quiet, 0.0
        strongest = max(strongest, strength[row])
    return flags
