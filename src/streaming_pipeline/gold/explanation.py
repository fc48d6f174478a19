"""Which input drove a flag? The one that, were it as usual, would raise the score most.

Occlusion (Zeiler and Fergus 2014), input by input: cheap, since only flagged events are asked about, and honest about a forest, whose
score is no sum of its inputs. Where only the combination of several inputs is strange, the explanation says that.
"""

import numpy as np
import pandas as pd
from sklearn.pipeline import Pipeline

from streaming_pipeline.detectors.phase import DAY, HOUR, WEEK

_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_THURSDAY = 3
"""The first day of 1970."""


class ExplainedPipeline(Pipeline):
    """`features` (an `EventFeatures`) and `forest`; it says of an event what gold says of it."""

    def predict(self, rows: pd.DataFrame) -> pd.DataFrame:
        """`anomaly_score` (`decision_function`; lower is stranger), `anomaly_flag` (-1 below 0, else 1), and of the flagged rows
        `explanation`."""
        scores = self.decision_function(rows) if len(rows) else np.zeros(0)
        explained = pd.Series(np.full(len(rows), None), index=rows.index, dtype=object)
        explained[scores < 0] = self.explain(rows[scores < 0])
        flags = np.where(scores < 0, -1, 1).astype(np.int32)
        return pd.DataFrame({"anomaly_score": scores, "anomaly_flag": flags, "explanation": explained}, index=rows.index)

    def explain(self, rows: pd.DataFrame) -> list[str]:
        """One sentence for each of these rows, which have the columns that the model was fitted on."""
        if not len(rows):
            return []
        features, forest = self.named_steps["features"], self.named_steps["forest"]
        cells = features.cells(rows)
        inputs = features.transform(rows)
        usual_values = {name: usual.value(np.zeros(len(rows)), cells) for name, usual in features.usual_.items()}
        usual_inputs = {name: features.transform(rows.assign(**{name: values})) for name, values in usual_values.items()}
        if features.periods_:
            # At another hour other values would be usual: the time alone is put elsewhere.
            elsewhere = features.transform(rows.assign(**{features.time: features.busiest_}))
            first = inputs.shape[1] - 2 * len(features.periods_)
            usual_inputs[features.time] = np.hstack([inputs[:, :first], elsewhere[:, first:]])
        scores = forest.score_samples(np.vstack([inputs, *usual_inputs.values()])).reshape(-1, len(rows))
        gains = scores[1:] - scores[0]
        names, driver = list(usual_inputs), gains.argmax(axis=0)
        explained = []
        for n, (row, which) in enumerate(zip(rows.to_dict("records"), driver, strict=True)):
            name = names[which]
            if gains[which, n] <= 0:
                explained.append(f"{', '.join(names)}: each is usual, their combination is not")
            elif name == features.time:
                explained.append(f"{name}: few events come {_moment(row[name], WEEK in features.periods_)}")
            else:
                distance = float(inputs[n, 2 * names.index(name)])
                middle = usual_values[name][n]
                side = "below" if distance < 0 else "above"
                of = f" of {row[features.slice_field]}" if features.slice_field else ""
                at = f" at {int(row[features.time] % DAY // HOUR):02}h UTC" if features.has_time_ else ""
                away = f"{abs(distance):.1f} standard deviations {side} the usual {middle:.6g}{of}{at}"
                explained.append(f"{name}: {row[name]:.6g} is {away}")
        return explained


def _moment(seconds: float, knows_days: bool) -> str:
    day, rest = divmod(seconds, DAY)
    on = f"on {_DAYS[int(day + _THURSDAY) % 7]} " if knows_days else ""
    return f"{on}at {int(rest // HOUR):02}h UTC"
