"""The registered model: which version is champion, and loading it."""

import logging
from dataclasses import dataclass

import mlflow
import sklearn
from mlflow.exceptions import MlflowException
from sklearn.pipeline import Pipeline

from streaming_pipeline.errors import PipelineError
from streaming_pipeline.settings import Settings

# The client warns of its own deprecations at every call; nobody here can act on them.
logging.getLogger("mlflow").setLevel(logging.ERROR)

CHAMPION = "champion"
SKLEARN_TAG = "sklearn_version"


@dataclass(frozen=True)
class Champion:
    """The model that scores: its full name, its version and the fitted pipeline."""

    name: str
    version: str
    features: tuple[str, ...]
    pipeline: Pipeline


def champion_version(settings: Settings) -> str | None:
    """The version that holds the alias `champion`, or None if there is none yet."""
    try:
        return str(mlflow.MlflowClient().get_model_version_by_alias(settings.model_full_name, CHAMPION).version)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND"):
            return None
        raise


def load_champion(settings: Settings) -> Champion:
    """Load the champion; raises `PipelineError` if there is none, or if it was trained by another scikit-learn."""
    version = champion_version(settings)
    if version is None:
        raise PipelineError(f"No version of {settings.model_full_name} is champion yet: run the job train_anomaly_detector.")
    trained_by = mlflow.MlflowClient().get_model_version(settings.model_full_name, version).tags.get(SKLEARN_TAG)
    if trained_by != sklearn.__version__:
        raise PipelineError(
            f"Version {version} of {settings.model_full_name} was trained by scikit-learn {trained_by}, this is {sklearn.__version__}: "
            "its file cannot be trusted to load. Run the job train_anomaly_detector here."
        )
    pipeline = mlflow.sklearn.load_model(f"models:/{settings.model_full_name}/{version}")
    return Champion(settings.model_full_name, version, tuple(pipeline.feature_names_in_), pipeline)
