"""Several kinds of strangeness of one column, as one score and few alarms."""

from collections.abc import Mapping

import numpy as np

from streaming_pipeline.detectors.surprise import surprise

THRESHOLD = 4.0
_FADING = 0.1
_QUIET = 0.15
"""After an alarm there is none for so many of the training rows."""


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
    """Rows to tell somebody of: those that reach the threshold while nobody was told of another for a while."""
    flags = np.zeros(len(strength), dtype=bool)
    quiet, next_row = max(1, int(_QUIET * train)), train
    for row in np.flatnonzero(strength >= 1).tolist():
        if row >= next_row:
            flags[row] = True
            next_row = row + quiet
    return flags
