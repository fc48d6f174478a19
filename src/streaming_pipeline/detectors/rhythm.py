"""How many arrivals a minute are usual at this time of day? And by how much does a minute depart from that?"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

MINUTES = 60
HOURS = 24
_DAILY_FADING = 0.5 ** (1 / 7)  # a day counts half after seven more of its hours of day
_ENOUGH_MINUTES = 90  # of an hour of day: it was seen on two days
_LEVEL_FADING = 0.5 ** (1 / 3)  # per hour: how busy the last hours were against the usual
_LEVEL_PRIOR = 60.0
_LEVELS = (0.5, 2.0)


class Expected(NamedTuple):
    """Arrivals to expect by minute. Where a stream falls asleep within a minute the line is wrong, so the hour's own mean bounds it."""

    usual: np.ndarray
    at_least: np.ndarray
    at_most: np.ndarray


@dataclass(eq=False)
class Rhythm:
    """Arrivals a minute by hour of day (UTC), each day weighing less than the one after it, and how busy the last hours were."""

    rates: np.ndarray = field(default_factory=lambda: np.zeros(HOURS))
    weights: np.ndarray = field(default_factory=lambda: np.zeros(HOURS))
    """Minutes that each rate was taken from, faded."""
    seen: float = 0.0
    usual: float = 0.0
    """Arrivals of the last hours, and how many were usual then."""

    def expected(self, minutes: np.ndarray) -> "Expected":
        """Arrivals to expect in each of these minutes (since 1970); NaN at an hour of day not seen on two days yet.

        Between the middles of two hours on a straight line, and raised or lowered, by a factor of 2 at most, as the last hours were.
        """
        place = (minutes % (HOURS * MINUTES) + 0.5) / MINUTES - 0.5
        before = np.floor(place).astype(int)
        share = place - before
        known = self.weights >= _ENOUGH_MINUTES
        first, second = before % HOURS, (before + 1) % HOURS
        here = minutes // MINUTES % HOURS
        own = np.where(known[here], self.rates[here] * self.level, np.nan)
        on_line = (self.rates[first] * (1 - share) + self.rates[second] * share) * self.level
        usual = np.where(known[first] & known[second] & known[here], on_line, own)
        return Expected(usual, np.minimum(own, usual), np.maximum(own, usual))

    @property
    def level(self) -> float:
        """How busy the last hours were against the usual."""
        return float(np.clip((self.seen + _LEVEL_PRIOR) / (self.usual + _LEVEL_PRIOR), *_LEVELS))

    def learn(self, minutes: np.ndarray, counts: np.ndarray, expected: np.ndarray) -> None:
        """Take in the usual minutes of one hour, and what had been expected of each."""
        if not len(minutes):
            return
        hour = int(minutes[0] // MINUTES % HOURS)
        kept = self.weights[hour] * _DAILY_FADING ** (len(minutes) / MINUTES)
        self.rates[hour] = (self.rates[hour] * kept + counts.sum()) / (kept + len(minutes))
        self.weights[hour] = kept + len(minutes)
        known = ~np.isnan(expected)
        fading = _LEVEL_FADING ** (len(minutes) / MINUTES)
        self.seen = self.seen * fading + float(counts[known].sum())
        # Without the level, which would otherwise chase itself.
        self.usual = self.usual * fading + float(expected[known].sum()) / self.level

    def to_json(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {"rates": self.rates.tolist(), "weights": self.weights.tolist(), "seen": self.seen, "usual": self.usual}

    @classmethod
    def from_json(cls, held: dict[str, Any]) -> "Rhythm":
        """What `to_json` wrote."""
        rates, weights = (np.array(held[name], dtype=float).reshape(HOURS) for name in ("rates", "weights"))
        return cls(rates, weights, float(held["seen"]), float(held["usual"]))


def residuals(counts: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """How far counts are from what was expected, on Anscombe's scale (1948): of a Poisson stream its spread is 1 at any rate."""
    return 2 * (np.sqrt(counts + 0.375) - np.sqrt(expected + 0.375))
