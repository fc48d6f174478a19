"""Has a source gone silent? A run of minutes with next to no arrival, against how many there should have been.

In a Poisson stream nothing arrives where λ were expected with a probability of e^-λ; a stream in bursts is told by its dispersion φ (the
variance of its residuals, at least 1), and e^(-λ/φ) stands for it (quasi-Poisson, McCullagh and Nelder 1989, 6.2).
"""

import math
from dataclasses import dataclass

import numpy as np

THRESHOLD = -math.log(1e-8)
"""Of the score, which is λ/φ."""
MIN_MINUTES = 15
"""A shorter silence is none, however many arrivals a minute are usual."""
QUIET = 0.1
"""A minute with at most this share of what was expected is quiet."""


@dataclass(frozen=True)
class Gap:
    """A silence: first minute (since 1970), the minute behind its last, arrivals expected and seen in it, and its score."""

    start: int
    end: int
    expected: float
    seen: float
    score: float

    @property
    def is_finding(self) -> bool:
        """Whether it is long and unlikely enough."""
        return self.score >= THRESHOLD and self.end - self.start >= MIN_MINUTES


def runs(
    minutes: np.ndarray, counts: np.ndarray, expected: np.ndarray, dispersion: float, before: Gap | None
) -> tuple[list[Gap], np.ndarray, Gap | None]:
    """Runs of quiet minutes, in order of time; `before` is one that was still open, and the last result is the one that is.

    The array says of each minute whether it is in a run that is a finding, or on its way to become one: nobody should learn from it.
    """
    found: list[Gap] = []
    doubtful = np.zeros(len(minutes), dtype=bool)
    current, begin = before, 0
    for place, (minute, count, usual) in enumerate(zip(minutes.tolist(), counts.tolist(), expected.tolist(), strict=True)):
        if usual == usual and count <= QUIET * usual:
            if current is None or current.end != minute:
                found += [current] if current else []
                current, begin = Gap(minute, minute, 0.0, 0.0, 0.0), place
            total = current.expected + usual
            current = Gap(current.start, minute + 1, total, current.seen + count, total / dispersion)
            if current.score >= THRESHOLD / 3:
                doubtful[begin : place + 1] = True
        elif current is not None:
            found.append(current)
            current = None
    return [gap for gap in found if gap.is_finding], doubtful, current


def seconds_until_finding(expected: np.ndarray, dispersion: float) -> float | None:
    """How long a silence may last before it is a finding; `expected` are its minutes, from the first on.

    None if it does not become one within these.
    """
    sums = np.nancumsum(expected) / dispersion
    place = int(np.searchsorted(sums, THRESHOLD))
    return None if place >= len(sums) else 60.0 * max(place + 1, MIN_MINUTES)
