"""How far from what was to be expected? The best of several simple forecasts, by how well they did so far."""

from dataclasses import dataclass, field

import numpy as np

from streaming_pipeline.detectors.phase import DAY, WEEK

_MOST_PHASES, _FEWEST_PHASES = 288, 4
"""Of a day."""
_LAST, _FEW, _MANY, _OFFSET = 1.0, 0.3, 0.02, 0.1
"""Weights of the newest value in a level: the value before, the last few, the last hundred; and in the level of a profile."""
_LEAST_WEIGHT = 0.2
"""Of the newest day in a profile."""
_ERROR_WEIGHT = 0.005
_TRIALS = 10
"""A forecast that was made less often is not trusted yet."""
_BOUND = 5.0
"""What is further off than so many mean errors teaches as if it were just so far off."""
_LEAST_ERROR = 1e-9


@dataclass(eq=False)
class _Level:
    """An average of the values before, in which the newest has this weight."""

    weight: float
    level: float | None = None

    def forecast(self, row: int) -> float | None:
        return self.level

    def learn(self, row: int, value: float) -> None:
        self.level = value if self.level is None else self.level + self.weight * (value - self.level)


@dataclass(eq=False)
class _Profile:
    """The usual value at each phase of a day or a week, moved to the level of now."""

    phases: list[int]
    usual: dict[int, tuple[float, int]] = field(default_factory=dict)
    offset: float = 0.0

    def forecast(self, row: int) -> float | None:
        held = self.usual.get(self.phases[row])
        return None if held is None else held[0] + self.offset

    def learn(self, row: int, value: float) -> None:
        mean, seen = self.usual.get(self.phases[row], (value, 0))
        if seen:
            self.offset += _OFFSET * (value - mean - self.offset)
        self.usual[self.phases[row]] = mean + max(_LEAST_WEIGHT, 1 / (seen + 1)) * (value - mean), seen + 1


def residuals(seconds: np.ndarray, values: np.ndarray, interval: float) -> np.ndarray:
    """Value - forecast in units of the forecast's mean error, each by the rows before it alone; 0 where no forecast is trusted yet.

    Forecasts are levels and, where the sampling `interval` (seconds) allows, the usual value at that time of the day and of the week. The
    one whose mean error is least speaks.
    """
    forecasters: list[_Level | _Profile] = [_Level(weight) for weight in (_LAST, _FEW, _MANY)]
    phases = min(_MOST_PHASES, round(DAY / interval)) if interval > 0 else 0
    if phases >= _FEWEST_PHASES:
        forecasters += [_Profile((seconds % period / DAY * phases).astype(int).tolist()) for period in (DAY, WEEK)]
    errors, trials = [0.0] * len(forecasters), [0] * len(forecasters)
    out = np.zeros(len(values))
    for row, value in enumerate(values.tolist()):
        made = [one.forecast(row) for one in forecasters]
        trusted = [(errors[n], forecast) for n, forecast in enumerate(made) if forecast is not None and trials[n] >= _TRIALS]
        if trusted:
            error, best = min(trusted)
            out[row] = (value - best) / max(error, _LEAST_ERROR)
        for n, (one, forecast) in enumerate(zip(forecasters, made, strict=True)):
            taught = value
            if forecast is not None:
                miss = value - forecast
                if trials[n] >= _TRIALS:
                    reach = _BOUND * max(errors[n], _LEAST_ERROR)
                    miss = min(max(miss, -reach), reach)
                trials[n] += 1
                errors[n] += max(_ERROR_WEIGHT, 1 / trials[n]) * (abs(miss) - errors[n])
                taught = forecast + miss
            # The value before is taken as it is: after a jump the series goes on from there.
            one.learn(row, value if n == 0 else taught)
    return out
