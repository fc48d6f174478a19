"""How many standard deviations from the mean? Extremes widen the spread and so hide each other: see robust_zscore."""

from streaming_pipeline.detectors.memory import DAYS
from streaming_pipeline.detectors.summary import Summary

THRESHOLD = 4.5
HALF_LIFE = DAYS
GAUSSIAN_SCALE = 1.0


def centre_and_scale(memory: Summary) -> tuple[float, float]:
    """Mean and standard deviation of what is remembered.

    >>> import numpy as np
    >>> centre_and_scale(Summary.of(np.array([2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]), [4.0]))
    (5.0, 2.0)
    """
    return memory.mean, memory.std
