"""Train a challenger on silver, log and register it, and make it champion if the gate lets it pass."""

import os
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime

os.environ.setdefault("MPLBACKEND", "agg")

import cloudpickle
import mlflow
import numpy as np
import pandas as pd
import sklearn
from matplotlib.figure import Figure
from mlflow.models import ModelSignature, infer_signature
from mlflow.types import ColSpec, Schema
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from streaming_pipeline.core import tables
from streaming_pipeline.core.contract import Contract, load_contract
from streaming_pipeline.core.errors import PipelineError
from streaming_pipeline.core.settings import Settings
from streaming_pipeline.core.wording import duration, plural
from streaming_pipeline.detectors import bins, phase
from streaming_pipeline.gold import calibration, explanation, features, gate, inputs
from streaming_pipeline.gold.calibration import Fitted
from streaming_pipeline.gold.registry import CHALLENGER, GATE_TAG, SKLEARN_TAG, Model, champion_version, load_version, promote
from streaming_pipeline.monitoring.scores import reference

MINIMUM_RECORDS = 100
MAXIMUM_RECORDS = 200_000
"""More teach a forest nothing, and all of them pass through the driver."""
_PLACE, _TIME = "_place", "_time"
_PREDICTED = Schema(
    [ColSpec("double", "anomaly_score"), ColSpec("integer", "anomaly_flag"), ColSpec("string", "explanation", required=False)]
)


@dataclass(frozen=True)
class Training:
    """One training: what was registered, from how much, what the gate said, and its pictures.

    Where there were too few events nothing was: then `version` and pictures are empty, and the note says how many there are.
    """

    model_name: str
    version: str
    records: int
    flag_rate: float
    seconds: float
    is_champion: bool
    note: str
    figures: dict[str, Figure] = field(repr=False)

    @property
    def summary(self) -> str:
        """What was trained, in a sentence."""
        if not self.version:
            return f"{self.model_name}: {self.note}"
        how_often = f"{self.flag_rate:.3%} flagged, {duration(self.seconds)}"
        return f"{self.model_name} version {self.version}: {plural(self.records, 'record')}, {how_often}"


def training_frame(spark: SparkSession, settings: Settings, contract: Contract, version: int, columns: tuple[str, ...]) -> pd.DataFrame:
    """The rows of this version of silver with these columns and `_time` (seconds), about `MAXIMUM_RECORDS` at most, picked and ordered by
    the hash of their id: the same version, the same frame."""
    silver = spark.read.format("delta").option("versionAsOf", version).table(settings.table("silver_events"))
    total = silver.count()
    place = F.xxhash64(f"`{contract.id_field}`")
    if total > MAXIMUM_RECORDS:
        silver = silver.where(F.pmod(place, F.lit(1_000_000)) < int(MAXIMUM_RECORDS / total * 1_000_000))
    chosen = silver.select(*inputs.columns(contract, columns), inputs.timestamp_unix(contract).alias(_TIME), place.alias(_PLACE))
    return chosen.toPandas().sort_values(_PLACE, ignore_index=True).drop(columns=_PLACE)


def train(spark: SparkSession, settings: Settings) -> Training:
    """Fit, log to MLflow, register as challenger, and promote it if there is no champion yet or the gate lets it pass.

    With fewer than `MINIMUM_RECORDS` events, or too short a time of them, nothing is trained, and the note says so: a new stream has few,
    and nothing is broken.
    Raises `UsageError` for a feature that silver lacks.
    """
    contract = load_contract(settings.contract_path)
    tables.create_missing(spark, settings, [tables.silver_events(contract)])
    silver_version = tables.newest_version(spark, settings, "silver_events")
    names = inputs.features(contract, settings.features)
    columns = inputs.chosen(contract, names)
    total = tables.row_count(spark, settings, "silver_events")
    if total < MINIMUM_RECORDS:
        return _untrained(settings, f"training needs {MINIMUM_RECORDS} events, and there {'is' if total == 1 else 'are'} {total}")
    champion, why_none = _champion(settings, contract)
    every = tuple(dict.fromkeys((*columns, *(champion.columns if champion else ()))))
    frame = training_frame(spark, settings, contract, silver_version, every)
    began = time.perf_counter()
    try:
        fitted = calibration.fit(frame[list(columns)], inputs.level_by(contract, names), settings.contamination)
    except calibration.TooFew as few:
        return _untrained(settings, str(few))
    seconds = time.perf_counter() - began
    held_out = frame.loc[fitted.held_out.index]
    recent = gate.recent_of(held_out, held_out[_TIME])
    checks, measured = gate.examine(fitted, champion.pipeline if champion else None, recent, settings.contamination)
    # Those beyond the fence too: gold will see such events as well.
    scored = frame.iloc[len(frame) // 2 :]
    scores = fitted.pipeline.decision_function(scored[list(columns)])
    figures = {"score_histogram.png": score_histogram(scores), "score_over_time.png": score_over_time(scored[_TIME].to_numpy(), scores)}
    mlflow.set_experiment(settings.experiment)
    with mlflow.start_run(run_name=f"train-{settings.run_id}"):
        mlflow.log_params(
            {
                "features": ",".join(names),
                "contamination": settings.contamination,
                "training_records": len(frame),
                "silver_version": silver_version,
                "contract_fingerprint": contract.fingerprint,
                SKLEARN_TAG: sklearn.__version__,
                **{f"forest_{k}": v for k, v in fitted.pipeline.named_steps["forest"].get_params().items() if k != "contamination"},
            }
        )
        mlflow.log_metrics(
            {
                "training_records": len(frame),
                "held_out_records": len(fitted.held_out),
                "excluded_records": fitted.excluded,
                "flag_rate": fitted.flag_rate,
                "threshold": float(fitted.pipeline.named_steps["forest"].offset_),
                "training_seconds": seconds,
                "flag_rate_with_extremes": float(np.mean(scores < 0)),
                **measured,
                **{f"gate_{check.name}": check.value for check in checks},
            }
        )
        for name, figure in figures.items():
            mlflow.log_figure(figure, name)
        version = _register(fitted, frame[list(columns)].head(5), settings)
    client = mlflow.MlflowClient()
    client.set_model_version_tag(settings.model_full_name, version, SKLEARN_TAG, sklearn.__version__)
    # What is scored from now on is held against these.
    row = reference(scores, scored[_TIME].to_numpy(), settings.model_full_name, version).to_row(None, settings.run_id, datetime.now(UTC))
    tables.append_rows(spark, settings, tables.BASELINES, [row])
    failed = [str(check) for check in checks if not check.is_passed]
    passed = [str(check) for check in checks if check.is_passed]
    said = "; ".join(f"{what}: {', '.join(of)}" for what, of in (("refused", failed), ("passed", passed)) if of)
    client.set_model_version_tag(settings.model_full_name, version, GATE_TAG, said)
    is_champion = champion is None or not failed
    if is_champion:
        promote(settings, version)
        notes = [f"version {version} is champion and scores {_scored_by_it(is_first=champion is None and not why_none)}", why_none]
        if failed:
            notes.append(f"the gate would have refused it, but there is no other: {'; '.join(failed)}")
    else:
        notes = [f"the gate refused version {version}, and version {champion.version} stays champion: {'; '.join(failed)}"]
    note = "; ".join(filter(None, (*notes, fitted.note)))
    return Training(settings.model_full_name, version, len(frame), fitted.flag_rate, seconds, is_champion, note, figures)


def _scored_by_it(*, is_first: bool) -> str:
    """Which events a new champion scores: gold keeps the scores of the one before it."""
    return "every event that has no score yet" if is_first else "new events from now on; run `rescore` for earlier ones"


def _untrained(settings: Settings, why: str) -> Training:
    champion = champion_version(settings)
    meanwhile = f"version {champion} stays champion" if champion else "no event is scored until then"
    note = f"{why.rstrip('.')}; {meanwhile}"
    return Training(settings.model_full_name, "", 0, 0.0, 0.0, is_champion=False, note=note, figures={})


def _champion(settings: Settings, contract: Contract) -> tuple[Model | None, str]:
    """The champion to compare with, if there is one and it can score here; else why it cannot."""
    version = champion_version(settings)
    if version is None:
        return None, ""
    try:
        champion = load_version(settings, version)
        inputs.check(champion, contract)
    except PipelineError as error:
        return None, f"not compared with the champion before it ({error})"
    return champion, ""


def _register(fitted: Fitted, example: pd.DataFrame, settings: Settings) -> str:
    """Log the pipeline to the run that is open and register it; returns its version, which is challenger then."""
    # By value: whoever loads the model needs scikit-learn, but not this package.
    for module in (features, explanation, bins, phase):
        cloudpickle.register_pickle_by_value(module)
    logged = mlflow.sklearn.log_model(
        fitted.pipeline,
        name="model",
        signature=ModelSignature(infer_signature(example).inputs, _PREDICTED),
        input_example=example,
        serialization_format="cloudpickle",
        # Named, since MLflow would otherwise load the model in a process of its own to find out.
        pip_requirements=[f"scikit-learn=={sklearn.__version__}", f"numpy=={np.__version__}", f"pandas=={pd.__version__}"],
        registered_model_name=settings.model_full_name,
    )
    version = str(logged.registered_model_version)
    mlflow.MlflowClient().set_registered_model_alias(settings.model_full_name, CHALLENGER, version)
    return version


def score_histogram(scores: np.ndarray) -> Figure:
    """The distribution of anomaly scores, with the threshold at 0."""
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    axes.hist(scores, bins=80, color="#3b6ea5")
    axes.axvline(0, color="#c0392b", linestyle="--", label="threshold: below is an anomaly")
    axes.set(xlabel="anomaly score (decision_function)", ylabel="events", yscale="log", title="Anomaly scores of held-out events")
    axes.legend()
    return figure


def score_over_time(seconds: np.ndarray, scores: np.ndarray) -> Figure:
    """Scores by event time (seconds since 1970), the flagged ones in red."""
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    moments, is_flagged = pd.to_datetime(seconds, unit="s", errors="coerce"), scores < 0  # beyond 2262 there are none to draw
    axes.plot(moments[~is_flagged], scores[~is_flagged], ",", color="#3b6ea5", label="usual")
    axes.plot(moments[is_flagged], scores[is_flagged], ".", color="#c0392b", label="flagged")
    axes.set(xlabel="event time (UTC)", ylabel="anomaly score", title="Anomaly scores of held-out events over time")
    axes.legend(loc="lower left")
    figure.autofmt_xdate()
    return figure
