"""The detectors of monitoring over a whole series, row by row: how far is each value, in thresholds, by what was remembered before it?"""

from collections.abc import Sequence

import numpy as np

from streaming_pipeline.detectors import DETECTORS
from streaming_pipeline.detectors.bins import SHARES, as_seen, lay_bins
from streaming_pipeline.detectors.memory import Memory
from streaming_pipeline.detectors.summary import Summary
from streaming_pipeline.detectors.surprise import blocks

ROWS_OF_AN_HOUR = 12
"""Detectors remember by hours, which are so many rows here, whatever the sampling interval."""
MIN_ROWS = 20
_MOST_ROWS = 30
"""Judged by the same memory."""


def distances(values: np.ndarray, train: int, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Detector → distance of each row from the centre, 1 where its threshold lies; NaN without a scale, and in the first half of the
    `train` training rows.

    As in monitoring, skewed values are seen as asinh(x / s), and what lies outside of a detector's fences is not learnt from.
    """
    edges, scale = lay_bins(np.quantile(values[:train], SHARES))
    seen, bins = as_seen(values, scale), as_seen(edges, scale)
    memory = Memory(bins)
    first = train // 2
    if first:
        memory.learn(Summary.of(seen[:first], bins), first / ROWS_OF_AN_HOUR)
    found = {name: np.full(len(values), np.nan) for name in names}
    for begin, end in blocks(first, len(values), most=_MOST_ROWS):
        here = seen[begin:end]
        kept = Summary.of(here, bins)
        for name in names:
            held = memory.held[DETECTORS[name].HALF_LIFE]
            if held.records < MIN_ROWS:
                continue
            centre, scale_here = DETECTORS[name].centre_and_scale(held)
            if scale_here > 0:
                reach = scale_here * DETECTORS[name].THRESHOLD
                found[name][begin:end] = np.abs(here - centre) / reach
                kept = kept.within(centre - reach, centre + reach)
        memory.learn(kept, (end - begin) / ROWS_OF_AN_HOUR)
    return found
