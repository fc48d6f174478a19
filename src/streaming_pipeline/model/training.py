"""Train the anomaly detector on silver and register it as champion."""

import os
import time
from dataclasses import dataclass
from datetime import UTC, datetime

os.environ.setdefault("MPLBACKEND", "agg")

import cloudpickle
import mlflow
import numpy as np
import pandas as pd
import sklearn
from matplotlib.figure import Figure
from mlflow.models import infer_signature
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from streaming_pipeline import tables
from streaming_pipeline.contract import Contract, load_contract
from streaming_pipeline.errors import PipelineError
from streaming_pipeline.model import features
from streaming_pipeline.model.registry import CHAMPION, SKLEARN_TAG
from streaming_pipeline.monitoring.scores import reference
from streaming_pipeline.settings import Settings

MINIMUM_RECORDS = 100
MAXIMUM_RECORDS = 200_000
"""More teach a forest of 100 trees with 1,024 rows each nothing, and all of them pass through the driver."""


@dataclass(frozen=True)
class Training:
    """One training: what was registered, from how much, and the share of it that the threshold flags."""

    model_name: str
    version: str
    records: int
    flag_rate: float
    seconds: float
    figure: Figure


def training_frame(spark: SparkSession, settings: Settings, contract: Contract, version: int) -> pd.DataFrame:
    """The rows of this version of silver as the model's input, about `MAXIMUM_RECORDS` at most, picked by the hash of their id: the
    same version, the same rows."""
    silver = spark.read.format("delta").option("versionAsOf", version).table(settings.table("silver_events"))
    total = silver.count()
    if total < MINIMUM_RECORDS:
        raise PipelineError(
            f"silver_events has {total} rows; training needs at least {MINIMUM_RECORDS}. Run the pipeline on more events first."
        )
    if total > MAXIMUM_RECORDS:
        share = MAXIMUM_RECORDS / total
        silver = silver.where(F.pmod(F.xxhash64(f"`{contract.id_field}`"), F.lit(1_000_000)) < int(share * 1_000_000))
    return features.feature_frame(silver, contract, settings.features).toPandas()


def train(spark: SparkSession, settings: Settings) -> Training:
    """Fit, log to MLflow, register, and make the new version champion.

    Raises `PipelineError` where silver has too few rows, `UsageError` for a feature that silver lacks.
    """
    contract = load_contract(settings.contract_path)
    tables.create_missing(spark, settings, [tables.silver_events(contract)])
    silver_version = spark.sql(f"DESCRIBE HISTORY {settings.table('silver_events')} LIMIT 1").first()["version"]
    frame = training_frame(spark, settings, contract, silver_version)
    began = time.perf_counter()
    pipeline = features.build_pipeline(settings.features, settings.contamination).fit(frame)
    seconds = time.perf_counter() - began
    scores = pipeline.decision_function(frame)
    flag_rate = float(np.mean(scores < 0))
    figure = score_histogram(scores)
    # By value: whoever loads the model needs scikit-learn, but not this package.
    cloudpickle.register_pickle_by_value(features)
    mlflow.set_experiment(settings.experiment)
    with mlflow.start_run(run_name=f"train-{settings.run_id}"):
        mlflow.log_params(
            {
                "features": ",".join(settings.features),
                "contamination": settings.contamination,
                "training_records": len(frame),
                "silver_version": silver_version,
                "contract_fingerprint": contract.fingerprint,
                SKLEARN_TAG: sklearn.__version__,
                **{f"forest_{k}": v for k, v in pipeline.named_steps["forest"].get_params().items() if k != "contamination"},
            }
        )
        mlflow.log_metrics({"training_records": len(frame), "flag_rate": flag_rate, "training_seconds": seconds})
        mlflow.log_figure(figure, "score_histogram.png")
        example = frame.head(5)
        logged = mlflow.sklearn.log_model(
            pipeline,
            name="model",
            signature=infer_signature(example, pipeline.predict(example)),
            input_example=example,
            serialization_format="cloudpickle",
            # Named, since MLflow would otherwise load the model in a process of its own to find out.
            pip_requirements=[f"scikit-learn=={sklearn.__version__}", f"numpy=={np.__version__}", f"pandas=={pd.__version__}"],
            registered_model_name=settings.model_full_name,
        )
    client = mlflow.MlflowClient()
    version = str(logged.registered_model_version)
    client.set_model_version_tag(settings.model_full_name, version, SKLEARN_TAG, sklearn.__version__)
    # What is scored from now on is held against these.
    row = reference(scores, settings.model_full_name, version).to_row(None, settings.run_id, datetime.now(UTC))
    tables.append_rows(spark, settings, tables.BASELINES, [row])
    client.set_registered_model_alias(settings.model_full_name, CHAMPION, version)
    return Training(settings.model_full_name, version, len(frame), flag_rate, seconds, figure)


def score_histogram(scores: np.ndarray) -> Figure:
    """The distribution of anomaly scores, with the threshold at 0."""
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    axes.hist(scores, bins=80, color="#3b6ea5")
    axes.axvline(0, color="#c0392b", linestyle="--", label="threshold: below is an anomaly")
    axes.set(xlabel="anomaly score (decision_function)", ylabel="events", yscale="log", title="Anomaly scores of the training events")
    axes.legend()
    return figure
