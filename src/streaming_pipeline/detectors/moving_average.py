"""How many standard deviations from the exponentially weighted moving average? It follows a level that moves within hours."""

from streaming_pipeline.detectors.memory import HOURS
from streaming_pipeline.detectors.summary import Summary

THRESHOLD = 5.0
HALF_LIFE = HOURS
GAUSSIAN_SCALE = 1.0


def centre_and_scale(memory: Summary) -> tuple[float, float]:
    """Mean and standard deviation of what is remembered, in which six hours weigh as much as all before."""
    return memory.mean, memory.std
