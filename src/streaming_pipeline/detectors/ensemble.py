"""Several kinds of strangeness of one column, as one score and few alarms."""

from collections.abc import Mapping

import numpy as np

from streaming_pipeline.detectors.surprise import MEMORY, blocks, surprise_by

THRESHOLD = 4.8
_FADING = 0.1
_LEARNT = 3
"""Rows of an incident that are learnt from."""
_QUIET, _LOUDER = 0.15, 1.75
"""After an alarm there is none for so many of the training rows, but for one of so many times the largest strength since."""


def combined(deviations: Mapping[str, np.ndarray], train: int) -> np.ndarray:
    """The strength of each row, 1 at the threshold: how surprising its deviations are against the past of each, one that stands out
    alone as well as several together (mean of fourth powers), and twice how surprising the rows before it were: what is wrong lasts.

    It learns from only the first few rows that reach the threshold, so that the next incident is as surprising. What lasts longer than the
    quiet after an alarm is the new normal, and it learns from that again.
    """
    kinds = np.array(list(deviations.values()))
    rows = kinds.shape[1]
    strength, learnt = np.zeros(rows), np.ones(rows, dtype=bool)
    quiet, level, lasted = _quiet_rows(train), 0.0, 0
    for begin, end in blocks(train // 2, rows):
        past = slice(max(0, begin - MEMORY), begin)
        each = np.array([surprise_by(kind[past][learnt[past]], kind[begin:end]) for kind in kinds])
        at_once = np.mean(each**4, axis=0) ** 0.25
        together = np.sqrt(np.mean(each**2, axis=0))
        for row in range(begin, end):
            level += _FADING * (together[row - begin] - level)
            strength[row] = (at_once[row - begin] + 2 * level) / THRESHOLD
            lasted = lasted + 1 if row >= train and strength[row] >= 1 else 0
            learnt[row] = lasted <= _LEARNT or lasted > quiet
    return strength


def _quiet_rows(train: int) -> int:
    return max(1, int(_QUIET * train))


def alarms(strength: np.ndarray, train: int) -> np.ndarray:
    """Rows to tell somebody of: those that reach the threshold while nobody was told of another for a while, or that are far stronger
    than any row since."""
    flags = np.zeros(len(strength), dtype=bool)
    quiet, next_row, strongest = _quiet_rows(train), train, 0.0
    for row in (train + np.flatnonzero(strength[train:] >= 1)).tolist():
        if row >= next_row or strength[row] >= _LOUDER * strongest:
            flags[row] = True
            next_row, strongest = row + quiet, 0.0
        strongest = max(strongest, strength[row])
    return flags
