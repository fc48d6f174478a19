"""How far outside of the quartiles, in their distance (Tukey's fences)? At 3 what Tukey calls far out: 2 in a million of a Gaussian."""

from streaming_pipeline.detectors.memory import DAYS
from streaming_pipeline.detectors.summary import Summary

FENCE = 3.0
THRESHOLD = 0.5 + FENCE
HALF_LIFE = DAYS
GAUSSIAN_SCALE = 1.35


def centre_and_scale(memory: Summary) -> tuple[float, float]:
    """The middle of the quartiles and their distance: a quartile itself is 0.5 away. Without a distance the standard deviation."""
    low, high = memory.quantiles([0.25, 0.75]).tolist()
    scale = high - low
    return (low + high) / 2, scale if scale > memory.std / 1000 else memory.std
