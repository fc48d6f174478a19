"""Where in the day, or the week, a time lies, as two numbers that have no seam at midnight."""

import numpy as np

HOUR, DAY, WEEK = 3_600.0, 86_400.0, 604_800.0


def phase(seconds: np.ndarray, period: float) -> np.ndarray:
    """Seconds since 1970 → two columns in [-1, 1], sine and cosine of the place within the `period` (seconds)."""
    angle = 2 * np.pi * (seconds % period) / period
    return np.column_stack([np.sin(angle), np.cos(angle)])
