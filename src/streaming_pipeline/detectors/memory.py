"""What detectors remember of earlier values: those of days and those of hours, each fading by its half-life."""

from typing import Any

import numpy as np

from streaming_pipeline.detectors.summary import Summary

DAYS, HOURS = 168.0, 6.0
"""The half-lives, in hours of data."""
_NAMES = {DAYS: "long", HOURS: "short"}


class Memory:
    """Values by bin (`Summary`) of these edges, once for each half-life."""

    def __init__(self, edges: np.ndarray) -> None:
        self.held = {half_life: Summary.empty(edges) for half_life in _NAMES}
        """Half-life → what is remembered by it."""

    def learn(self, values: Summary, hours: float) -> None:
        """Take in the values of so many hours."""
        self.held = {half_life: held.faded(0.5 ** (hours / half_life)).merge(values) for half_life, held in self.held.items()}

    def to_json(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {name: self.held[half_life].to_json() for half_life, name in _NAMES.items()}

    @classmethod
    def from_json(cls, held: dict[str, Any], edges: np.ndarray) -> "Memory":
        """What `to_json` wrote of a memory with these edges."""
        memory = cls(edges)
        memory.held = {half_life: Summary.from_json(held[name], edges) for half_life, name in _NAMES.items()}
        return memory
