"""Spikes and gaps: arrivals a minute against the rhythm of the stream."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np

from streaming_pipeline.core.json_files import typed, whole
from streaming_pipeline.detectors import DETECTORS, gap, zscore
from streaming_pipeline.detectors.memory import DAYS, HOURS, Memory
from streaming_pipeline.detectors.rhythm import MINUTES, Rhythm, residuals
from streaming_pipeline.detectors.summary import Summary

_EDGES = np.linspace(-12, 12, 49)
_SPIKE_FACTOR = 2.0
"""A spike is at least so many times the usual."""
_SPIKE_THRESHOLD = 6.0
"""Of zscore, and of the others in proportion: there are many minutes, and a spike is to wake somebody."""
_ENOUGH_RESIDUALS = {DAYS: 600, HOURS: 300}
_BREAK = 5
"""Findings with at most so many minutes between them are one."""


@dataclass(frozen=True)
class Anomaly:
    """A finding about minutes `start` to before `end` (since 1970)."""

    detector: str
    anomaly_type: str
    series: str
    slice: str
    start: int
    end: int
    observed: float
    expected: float
    score: float
    threshold: float


@dataclass(eq=False)
class Watch:
    """What is remembered of the arrivals of one slice."""

    rhythm: Rhythm = field(default_factory=Rhythm)
    memory: Memory = field(default_factory=lambda: Memory(_EDGES))
    """Of the residuals of usual minutes."""
    next_minute: int | None = None
    """The first minute that was not judged yet."""
    quiet: gap.Gap | None = None
    spiking: list[Anomaly] = field(default_factory=list)
    """Spikes that may go on."""
    waiting: dict[int, int] = field(default_factory=dict)
    """Arrivals of minutes that were not over."""

    @property
    def dispersion(self) -> float:
        """Variance of the residuals that were no finding; 1 of a Poisson stream."""
        residuals_of_days = self.memory.held[DAYS]
        return max(1.0, residuals_of_days.variance) if residuals_of_days.records >= _ENOUGH_RESIDUALS[DAYS] else 1.0

    def judge(self, slice_name: str, arrived: dict[int, int], until: int) -> list[Anomaly]:
        """Judge the minutes before `until`, of which `arrived` has those with arrivals, and remember them.

        Each hour is judged by what was known before it. What comes for a minute that was judged already is not looked at.
        """
        for minute, count in arrived.items():
            self.waiting[minute] = self.waiting.get(minute, 0) + count
        if self.next_minute is None:
            if not self.waiting:
                return []
            self.next_minute = min(self.waiting)
        first, self.next_minute = self.next_minute, max(self.next_minute, until)
        minutes = np.arange(first, self.next_minute)
        counts = np.array([self.waiting.get(minute, 0) for minute in minutes.tolist()], dtype=float)
        self.waiting = {minute: count for minute, count in self.waiting.items() if minute >= self.next_minute}
        found: list[Anomaly] = []
        gaps: list[gap.Gap] = []
        for block in hours(minutes):
            found += self._spikes(slice_name, minutes[block], counts[block], gaps)
        ended = [*gaps, *([self.quiet] if self.quiet and self.quiet.is_finding else [])]
        spikes = joined([*self.spiking, *found])
        told, self.spiking = self.spiking, [spike for spike in spikes if spike.end >= self.next_minute - _BREAK]
        return [*(spike for spike in spikes if spike not in told), *(_gap_finding(slice_name, silence) for silence in ended)]

    def _spikes(self, slice_name: str, minutes: np.ndarray, counts: np.ndarray, gaps: list[gap.Gap]) -> list[Anomaly]:
        """Judge one hour, then learn from its usual minutes."""
        expected = self.rhythm.expected(minutes)
        silences, doubtful, self.quiet = gap.runs(minutes, counts, expected.at_least, self.dispersion, self.quiet)
        gaps += silences
        found, strange = [], doubtful
        distance = residuals(counts, expected.usual)
        for name, detector in DETECTORS.items():
            memory = self.memory.held[detector.HALF_LIFE]
            if memory.records < _ENOUGH_RESIDUALS[detector.HALF_LIFE] or np.isnan(expected.usual).all():
                continue
            centre, scale = detector.centre_and_scale(memory)
            threshold = detector.THRESHOLD * _SPIKE_THRESHOLD / zscore.THRESHOLD
            score = (distance - centre) / max(scale, detector.GAUSSIAN_SCALE)
            high = (score >= threshold) & (counts >= _SPIKE_FACTOR * expected.at_most)
            strange = strange | high
            found += [
                Anomaly(name, "spike", "arrivals", slice_name, minute, minute + 1, count, usual, value, threshold)
                for minute, count, usual, value in zip(
                    *(column[high].tolist() for column in (minutes, counts, expected.usual, score)), strict=True
                )
            ]
        usual = ~strange
        self.rhythm.learn(minutes[usual], counts[usual], expected.usual[usual])
        self.memory.learn(Summary.of(distance[usual], _EDGES), len(minutes) / MINUTES)
        return found

    def silence_allowed(self, since: int) -> float | None:
        """After how many seconds without arrivals from the minute `since` on a silence is a finding, if it is known."""
        ahead = self.rhythm.expected(np.arange(since, since + 7 * 24 * MINUTES)).at_least
        return gap.seconds_until_finding(ahead, self.dispersion)

    def to_json(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {
            "rhythm": self.rhythm.to_json(),
            **self.memory.to_json(),
            "next_minute": self.next_minute,
            "quiet": vars(self.quiet) if self.quiet else None,
            "spiking": [vars(spike) for spike in self.spiking],
            "waiting": list(self.waiting.items()),
        }

    @classmethod
    def from_json(cls, held: dict[str, Any]) -> "Watch":
        """What `to_json` wrote."""
        return cls(
            Rhythm.from_json(held["rhythm"]),
            Memory.from_json(held, _EDGES),
            whole(held["next_minute"]),
            typed(gap.Gap, held["quiet"]) if held["quiet"] else None,
            [typed(Anomaly, spike) for spike in held["spiking"]],
            {int(minute): int(count) for minute, count in held["waiting"]},
        )


def hours(minutes: np.ndarray) -> Iterator[slice]:
    """The places of each clock hour in consecutive minutes."""
    borders = [0, *(np.flatnonzero(np.diff(minutes // MINUTES)) + 1).tolist(), len(minutes)]
    return (slice(begin, end) for begin, end in pairwise(borders) if end > begin)


def joined(findings: list[Anomaly]) -> list[Anomaly]:
    """Findings of one detector about minutes next to each other as one, with the values of its strangest minute."""
    out: list[Anomaly] = []
    for one in sorted(findings, key=lambda found: (found.detector, found.series, found.slice, found.start)):
        last = out[-1] if out else None
        if last and (last.detector, last.series, last.slice) == (one.detector, one.series, one.slice) and one.start - last.end <= _BREAK:
            worst = max(last, one, key=lambda found: abs(found.score))
            out[-1] = replace(worst, start=last.start, end=one.end)
        else:
            out.append(one)
    return out


def _gap_finding(slice_name: str, silence: gap.Gap) -> Anomaly:
    return Anomaly(
        "gap", "missing_pattern", "arrivals", slice_name, silence.start, silence.end,
        silence.seen, silence.expected, silence.score, gap.THRESHOLD,
    )  # fmt: skip
