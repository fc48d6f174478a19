"""How strange is a value against what came before it? One detector, one file.

A textbook detector is a centre and a scale taken from a memory (`Summary`) of earlier values, and a threshold on the distance in scales.
Its module has `THRESHOLD`, `HALF_LIFE` (hours of data after which a value counts half: one of those of `memory`), `GAUSSIAN_SCALE` (its
scale of a standard Gaussian) and `centre_and_scale(memory)`.
"""

from types import ModuleType

from streaming_pipeline.detectors import iqr, moving_average, robust_zscore, zscore

DETECTORS: dict[str, ModuleType] = {module.__name__.rsplit(".", 1)[1]: module for module in (zscore, robust_zscore, iqr, moving_average)}
"""Name → module."""
