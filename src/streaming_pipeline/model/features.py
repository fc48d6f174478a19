"""What the model sees of an event.

Everything that changes a column stands inside the logged scikit-learn pipeline, so that whoever loads the model scores as gold does.
"""

import numpy as np
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import RobustScaler

from streaming_pipeline.contract import Contract
from streaming_pipeline.detectors.iforest import isolation_forest
from streaming_pipeline.errors import UsageError

DAY_SECONDS = 86_400.0


class TimeOfDay(TransformerMixin, BaseEstimator):
    """Seconds since 1970 → sine and cosine of the time of day.

    A model that saw raw time would call everything after its training strange: on 14 days of training the next 14 were flagged
    at 7 %; with the phase of the day instead, at the 1 % that was asked for.
    """

    def fit(self, X, y=None):
        """Nothing to learn."""
        self.n_features_in_ = np.asarray(X).shape[1]
        return self

    def transform(self, X) -> np.ndarray:
        """Columns of seconds → two columns in [-1, 1] for each."""
        phase = 2 * np.pi * (np.asarray(X, dtype=np.float64) % DAY_SECONDS) / DAY_SECONDS
        return np.hstack([np.sin(phase), np.cos(phase)])


def build_pipeline(features: tuple[str, ...], contamination: float, seed: int = 0) -> Pipeline:
    """An unfitted pipeline from the columns `features` to an IsolationForest; `contamination` is the share it shall flag."""
    steps = []
    numbers = [name for name in features if name != "timestamp_unix"]
    if numbers:
        steps.append(("numbers", RobustScaler(), numbers))
    if "timestamp_unix" in features:
        steps.append(("time_of_day", TimeOfDay(), ["timestamp_unix"]))
    forest = isolation_forest(contamination, seed=seed)
    return Pipeline([("features", ColumnTransformer(steps)), ("forest", forest)])


def feature_columns(contract: Contract, features: tuple[str, ...]) -> list[Column]:
    """The model's input columns, as doubles, from silver's; raises `UsageError` for a feature that silver cannot give."""
    numbers = {f.name for f in contract.fields if f.logical_type in ("number", "integer")}
    columns = []
    for name in features:
        if name == "timestamp_unix":
            columns.append(timestamp_unix(contract))
        elif name in numbers:
            columns.append(F.col(f"`{name}`").cast("double").alias(name))
        else:
            known = ", ".join(sorted({*numbers, "timestamp_unix"}))
            raise UsageError(f"Parameter 'features' names {name!r}, which is no number of the event contract; use {known}.")
    if not columns:
        raise UsageError("Parameter 'features' is empty: name at least one column, such as value,timestamp_unix.")
    return columns


def timestamp_unix(contract: Contract) -> Column:
    """The event time in seconds since 1970, to the microsecond."""
    return (F.unix_micros(f"`{contract.event_time_field}`") / 1e6).alias("timestamp_unix")


def feature_frame(silver: DataFrame, contract: Contract, features: tuple[str, ...]) -> DataFrame:
    """Silver rows → the model's input, one column for each feature."""
    return silver.select(*feature_columns(contract, features))
