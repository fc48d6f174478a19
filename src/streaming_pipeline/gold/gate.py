"""May a challenger score from now on? It must flag as much as was asked for, find outliers that were put in, and not call strange what
the champion finds usual."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score
from sklearn.pipeline import Pipeline

from streaming_pipeline.detectors.phase import DAY
from streaming_pipeline.gold.calibration import Fitted, fences_of, move_out
from streaming_pipeline.gold.features import EventFeatures

RECENT_DAYS = 7
FEWEST_RECENT = 1_000
_SHARE_PUT_IN, _FEWEST_PUT_IN = 0.01, 200
_REACH = (1.0, 3.0)
"""Put in are events of which one number lies so many fences from the usual."""
_LEAST_RECALL, _MOST_RECALL_LOST = 0.8, 0.1
_STRANGEST, _AMONG, _LEAST_AGREEMENT = 0.01, 0.05, 0.5


@dataclass(frozen=True)
class Check:
    """One thing that was looked at: it must lie between `least` and `most`."""

    name: str
    value: float
    least: float
    most: float = np.inf

    @property
    def is_passed(self) -> bool:
        return self.least <= self.value <= self.most

    def __str__(self) -> str:
        wanted = f"{self.least:.3g} to {self.most:.3g}" if np.isfinite(self.most) else f"{self.least:.3g} or more"
        return f"{self.name} {self.value:.3g} ({wanted})"


def recent_of(held_out: pd.DataFrame, time: pd.Series) -> pd.DataFrame:
    """Those of the rows whose `time` (seconds) lies in the last seven days of all, if these are enough; else all."""
    recent = held_out[time >= time.max() - RECENT_DAYS * DAY]
    return recent if len(recent) >= FEWEST_RECENT else held_out


def examine(
    challenger: Fitted, champion: Pipeline | None, recent: pd.DataFrame, contamination: float
) -> tuple[list[Check], dict[str, float]]:
    """All checks of a challenger on recent events that it has not learnt from, those against the champion only if there is one; and what
    is measured besides: `average_precision`.

    `recent` has the columns of both. What is put in is put in for both alike.
    """
    score = _scores(challenger.pipeline, recent)
    allowance = 0.5 * contamination + _by_chance(contamination, len(recent))
    checks = [Check("flag_rate", float(np.mean(score < 0)), max(0.0, contamination - allowance), contamination + allowance)]
    # What is usual is learnt from these events alone: an outlier by the challenger's own measure it would find, however blind it is.
    usual = EventFeatures(challenger.features.slice_field).fit(recent[list(challenger.pipeline.feature_names_in_)])
    put_in = move_out(usual, fences_of(usual, recent), recent, max(_FEWEST_PUT_IN, round(_SHARE_PUT_IN * len(recent))), _REACH, seed=1)
    measured = {}
    before = None if champion is None else _scores(champion, recent)
    if len(put_in):
        found = _scores(challenger.pipeline, put_in)
        recall = float(np.mean(found < 0))
        is_put_in = np.repeat([False, True], [len(score), len(found)])
        measured["average_precision"] = float(average_precision_score(is_put_in, -np.concatenate([score, found])))
        if champion is None:
            checks.append(Check("recall", recall, _LEAST_RECALL))
        else:
            # On some streams no forest finds so many; the champion does not either then.
            recall_before = float(np.mean(_scores(champion, put_in) < 0))
            checks.append(Check("recall", recall, min(_LEAST_RECALL, recall_before)))
            checks.append(Check("recall_lost", recall_before - recall, -1.0, _MOST_RECALL_LOST))
    if before is not None:
        strangest = before <= np.quantile(before, _STRANGEST)
        least = max(0.0, _LEAST_AGREEMENT - _by_chance(0.5, np.count_nonzero(strangest)))
        checks.append(Check("agreement", float(np.mean(score[strangest] <= np.quantile(score, _AMONG))), least))
    return checks, measured


def _by_chance(share: float, count: int) -> float:
    """What a share of so few may be off: three standard deviations of a binomial one."""
    return 3 * float(np.sqrt(share * (1 - share) / count))


def _scores(pipeline: Pipeline, rows: pd.DataFrame) -> np.ndarray:
    return pipeline.decision_function(rows[list(pipeline.feature_names_in_)])
