"""How far from the median, in median absolute deviations brought to a Gaussian's scale (Iglewicz and Hoaglin 1993)?"""

from streaming_pipeline.detectors.memory import DAYS
from streaming_pipeline.detectors.summary import Summary

THRESHOLD = 5.0
HALF_LIFE = DAYS
GAUSSIAN_SCALE = 1.0
_GAUSSIAN = 0.6744897501960817
"""MAD of a standard Gaussian."""


def centre_and_scale(memory: Summary) -> tuple[float, float]:
    """Median and MAD / 0.6745; where more than half of the values are the same, so that the MAD is 0, the standard deviation."""
    scale = memory.mad() / _GAUSSIAN
    return memory.quantile(0.5), scale if scale > memory.std / 1000 else memory.std
