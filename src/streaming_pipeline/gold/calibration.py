"""Fit the model on one half of the events, set its threshold on the other.

The model that was fitted knows its own half: its threshold would be too low there. Both halves leave out what lies beyond the fence,
since a threshold that one event in a thousand is to cross would otherwise be set by the outliers that it is to find.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from streaming_pipeline.core.errors import PipelineError
from streaming_pipeline.core.wording import plural
from streaming_pipeline.detectors.iforest import isolation_forest
from streaming_pipeline.gold.explanation import ExplainedPipeline
from streaming_pipeline.gold.features import EventFeatures

SAMPLES = 512
"""Events that a tree learns from. 256 made scoring a tenth faster and found some 1 % fewer outliers, 1,024 found no more."""
BACKGROUND, MOST_BACKGROUND, REACH = 0.02, 0.2, (0.8, 2.5)
"""So many made-up outliers of each number for each event the forest learns from, so many of all, and how many fences they lie from the
usual. A forest sees no difference beyond the outermost event it has learnt from: without these the strangest of usual events scored like
an outlier (average precision 0.77 without, above 0.99 with them; 0.90 on some streams where they lay 1 to 10 fences out)."""
_FENCE = 1e-5
"""Beyond the fence one usual event in so many is to be expected."""
_NEAREST, _FEWEST = 3.0, 20
"""A fence lies no nearer, in spreads; and there where fewer events tell anything of a side."""
_MANY = 0.02
"""So many usual events flagged are more than anybody looks at."""
_ENOUGH = 10
"""Flagged events that a threshold should rest on."""


class TooFew(PipelineError):
    """There are not events enough yet to train a model from; later there will be."""


@dataclass(frozen=True, eq=False)
class Fitted:
    """A model, its threshold set."""

    pipeline: ExplainedPipeline
    held_out: pd.DataFrame
    """The events that the threshold was set on, without those beyond a fence."""
    excluded: int
    """Events beyond a fence."""
    flag_rate: float
    """The share of `held_out` that is flagged."""
    note: str
    """What is to be said of the threshold, or nothing."""

    @property
    def features(self) -> EventFeatures:
        return self.pipeline.named_steps["features"]


def fit(frame: pd.DataFrame, slice_field: str | None, contamination: float, seed: int = 0) -> Fitted:
    """Fit a pipeline from the columns of `frame`, whose rows are in no order, to a forest that flags the share `contamination` of usual
    events: those with a `decision_function` below 0. Raises `TooFew` for times alone that lie within less than a day."""
    half = len(frame) // 2
    learning, held_out = frame.iloc[:half], frame.iloc[half:]
    features = EventFeatures(slice_field).fit(learning)
    if not features.usual_ and not features.periods_:
        raise TooFew(
            "The model sees only times, and all events lie within less than a day: name a number of the contract in 'features', or wait."
        )
    fences = fences_of(features, learning)
    usual, clean = (rows[is_within(features, fences, rows)] for rows in (learning, held_out))
    share = min(BACKGROUND * len(fences), MOST_BACKGROUND)
    background = move_out(features, fences, usual, round(share * len(usual)), REACH, seed)
    inputs = features.transform(pd.concat([usual, background]))
    forest = isolation_forest(samples=min(SAMPLES, len(inputs)), seed=seed).fit(inputs)
    scores = forest.score_samples(features.transform(clean))
    forest.offset_ = _threshold(scores, contamination)
    excluded = len(frame) - len(usual) - len(clean)
    notes = []
    if len(clean) * contamination < _ENOUGH / 2:
        notes.append(
            f"the threshold rests on {plural(len(clean), 'held-out event')}, too few for a flag rate of {contamination:.3%}: train on "
            f"{round(2 * _ENOUGH / contamination):,} events, or set a higher contamination"
        )
    if contamination > _MANY:
        notes.append(f"with contamination {contamination:g} one usual event in {1 / contamination:.2g} is flagged: is that intended?")
    if excluded > contamination * len(frame):
        notes.append(f"{excluded / len(frame):.2%} of the events lie outside the usual limits and are flagged in addition")
    if features.has_time_ and len(features.periods_) < 2:
        notes.append("the model has seen less than a week, so it ignores the day of the week")
    note = "; ".join(notes)
    flag_rate = float(np.mean(scores < forest.offset_))
    return Fitted(ExplainedPipeline([("features", features), ("forest", forest)]), clean, excluded, flag_rate, note)


def _threshold(scores: np.ndarray, share: float) -> float:
    """What this share of the scores lies below; of scores that many events have, the nearest share that there is."""
    ordered = np.sort(scores)
    wanted = share * len(ordered)
    at = ordered[int(wanted)]
    below, upto = np.searchsorted(ordered, at, side="left"), np.searchsorted(ordered, at, side="right")
    return float(at if wanted - below <= upto - wanted else np.nextafter(at, np.inf))


def fences_of(features: EventFeatures, rows: pd.DataFrame) -> dict[str, tuple[float, float]]:
    """Number → spreads below and above the usual beyond which hardly any of these rows would lie, were it not for outliers."""
    return {name: (_fence(-spreads), _fence(spreads)) for name, spreads in _spreads(features, rows).items()}


def is_within(features: EventFeatures, fences: dict[str, tuple[float, float]], rows: pd.DataFrame) -> np.ndarray:
    """Which rows lie within the fence of each number."""
    within = np.ones(len(rows), dtype=bool)
    for name, spreads in _spreads(features, rows).items():
        within &= (-fences[name][0] <= spreads) & (spreads <= fences[name][1])
    return within


def move_out(
    features: EventFeatures, fences: dict[str, tuple[float, float]], rows: pd.DataFrame, count: int, reach: tuple[float, float], seed: int
) -> pd.DataFrame:
    """`count` of these rows, each with one number put `reach` fences away from the usual, on either side. None where no number is."""
    if not fences or not len(rows):
        return rows.iloc[:0]
    rng = np.random.default_rng([seed, count])
    moved = rows.iloc[rng.integers(0, len(rows), count)].copy()
    cells = features.cells(moved)
    which = rng.integers(0, len(fences), count)
    fences_away = np.exp(rng.uniform(*np.log(reach), count)) * rng.choice([-1.0, 1.0], count)
    for place, (name, (below, above)) in enumerate(fences.items()):
        values = features.usual_[name].value(fences_away * np.where(fences_away < 0, below, above), cells)
        moved[name] = np.where(which == place, values, moved[name])
    return moved


def _spreads(features: EventFeatures, rows: pd.DataFrame) -> dict[str, np.ndarray]:
    cells = features.cells(rows)
    return {name: usual.spreads(rows[name].to_numpy(np.float64), cells)[0] for name, usual in features.usual_.items()}


def _fence(spreads: np.ndarray) -> float:
    """Where an exponential tail through the quantiles 0.9 and 0.98 of the distances on one side leaves `_FENCE` of them; what is heavier
    than a normal distribution gets a wider fence, and outliers, if fewer than one in fifty there, do not move it."""
    distances = spreads[spreads > 0]
    if len(distances) < _FEWEST:
        return _NEAREST
    near, far = np.quantile(distances, [0.9, 0.98])
    return float(max(far + (far - near) * np.log(0.02 / _FENCE) / np.log(0.1 / 0.02), _NEAREST))
