"""How surprising is a deviation against its own past? Brings the deviations of any detector on any series to one scale."""

from collections.abc import Iterator

import numpy as np

LEAST = 20
"""With a past of fewer nothing is surprising."""
_TAIL = 0.05
"""The share of past deviations that the tail is fitted to, `LEAST` of them at least."""
_FAR, _FARTHEST = 0.8, 10.0
"""An excess of the tail counts as so many times that which this share of them do not reach, at most."""
MEMORY = 20_000
"""Rows that are remembered."""
_MOST = 12.0


def blocks(first: int, rows: int, most: int = 1_000) -> Iterator[tuple[int, int]]:
    """Begin and end of blocks of rows that are judged by what came before the block: as long as a hundredth of that, `most` rows at most.

    They depend on no later row.
    """
    begin = first
    while begin < rows:
        end = min(rows, begin + min(most, max(1, begin // 100)))
        yield begin, end
        begin = end


def surprise_by(past: np.ndarray, deviations: np.ndarray) -> np.ndarray:
    """-log10 of the probability of deviations as large, by those of the past: 0 to 12; 0 where there is none (NaN), or too short a past.

    Within the past by its rank, beyond by an exponential law fitted to the past's largest (peaks over a threshold, Pickands 1975).
    """
    past = np.sort(past[np.isfinite(past)])
    if len(past) < LEAST:
        return np.zeros(len(deviations))
    as_large = len(past) - np.searchsorted(past, deviations, side="left")
    probability = (as_large + 1) / (len(past) + 1)
    peaks = past[-max(LEAST, int(_TAIL * len(past))) :]
    # One absurd value shall not make all others look small. Where the largest are all the same, a third of their distance from the
    # median is taken for their mean excess.
    excesses = peaks - peaks[0]
    limited = np.minimum(excesses, _FARTHEST * np.quantile(excesses, _FAR))
    excess = limited.mean() or excesses.mean() or max(peaks[0] - past[len(past) // 2], 1e-12) / 3
    beyond = len(peaks) / (len(past) + 1) * np.exp(-np.maximum(deviations - peaks[0], 0) / excess)
    probability = np.where(deviations > peaks[0], np.minimum(probability, beyond), probability)
    found = np.where(np.isfinite(deviations), -np.log10(np.maximum(probability, 10.0**-_MOST)), 0.0)
    return np.maximum(found, 0.0)


def surprise(deviations: np.ndarray, first: int) -> np.ndarray:
    """How surprising each deviation is by those before it (`surprise_by`); 0 before row `first`."""
    found = np.zeros(len(deviations))
    for begin, end in blocks(first, len(deviations)):
        found[begin:end] = surprise_by(deviations[max(0, begin - MEMORY) : begin], deviations[begin:end])
    return found
