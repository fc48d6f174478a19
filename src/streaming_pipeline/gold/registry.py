"""The registered model: which version is champion, making one champion, and loading it."""

import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import mlflow
import sklearn
from mlflow.exceptions import MlflowException

from streaming_pipeline.core.errors import PipelineError, UsageError
from streaming_pipeline.core.settings import Settings
from streaming_pipeline.gold.explanation import ExplainedPipeline

# The client warns of its own deprecations at every call; nobody here can act on them.
logging.getLogger("mlflow").setLevel(logging.ERROR)

CHAMPION, CHALLENGER = "champion", "challenger"
"""Aliases: the version that scores, and the newest that was trained."""
SKLEARN_TAG, GATE_TAG, BEFORE_TAG = "sklearn_version", "gate", "champion_before"
"""Tags of a version: what it was trained by, what the gate said of it, and the champion that it took the place of."""
_NOT_THERE = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND")


@dataclass(frozen=True)
class Model:
    """A version to score with: the model's full name, its version, the columns it wants and the fitted pipeline."""

    name: str
    version: str
    columns: tuple[str, ...]
    pipeline: ExplainedPipeline


def champion_version(settings: Settings) -> str | None:
    """The version that holds the alias `champion`, or None if there is none yet."""
    try:
        return str(mlflow.MlflowClient().get_model_version_by_alias(settings.model_full_name, CHAMPION).version)
    except MlflowException as error:
        if error.error_code in _NOT_THERE:
            return None
        raise


def load_champion(settings: Settings) -> Model:
    """Load the champion; raises `PipelineError` if there is none, or if it was trained by another scikit-learn."""
    version = champion_version(settings)
    if version is None:
        raise PipelineError(f"No version of {settings.model_full_name} is champion yet: run the job train_anomaly_detector.")
    return load_version(settings, version)


def load_version(settings: Settings, version: str) -> Model:
    """Load a version; raises `UsageError` if there is none, `PipelineError` if it was trained by another scikit-learn."""
    held = _version(settings, version)
    version = str(held.version)  # 03 is 3
    named, trained_by = f"Version {version} of {settings.model_full_name}", held.tags.get(SKLEARN_TAG)
    if trained_by is None:
        raise PipelineError(
            f"{named} was not registered by the job train_anomaly_detector, or not completely: run that job, or choose another version."
        )
    if trained_by != sklearn.__version__:
        raise PipelineError(
            f"{named} was trained by scikit-learn {trained_by}, this is {sklearn.__version__}: its file cannot be trusted to load. Run "
            "the job train_anomaly_detector here."
        )
    try:
        pipeline = mlflow.sklearn.load_model(f"models:/{settings.model_full_name}/{version}")
    except (OSError, MlflowException) as error:
        raise PipelineError(
            f"{named} has files that cannot be read ({' '.join(str(error).split())[:200]}): run the job train_anomaly_detector, or promote "
            "another version."
        ) from error
    if not hasattr(pipeline, "explain"):
        raise PipelineError(
            f"{named} was not trained by this package, or by an earlier version of it, and cannot explain its scores. Run the job "
            "train_anomaly_detector."
        )
    return Model(settings.model_full_name, version, tuple(pipeline.feature_names_in_), pipeline)


@dataclass(frozen=True)
class Change:
    """Which version is champion now, and which was before."""

    version: str
    before: str | None

    @property
    def note(self) -> str:
        """The same in a sentence."""
        if self.version == self.before:
            return f"version {self.version} was champion already"
        return f"version {self.version} is champion" + (f", version {self.before} was" if self.before else "")


PREVIOUS = "previous"
"""In place of a version: the champion before."""


def set_champion(settings: Settings, version: str) -> Change:
    """Make this version champion, or the one that was before (`previous`). Raises `UsageError` if there is no such version."""
    if version.strip() == PREVIOUS:
        return roll_back(settings)
    return promote(settings, version.strip())


def promote(settings: Settings, version: str) -> Change:
    """Make a version champion, in one step. Raises `UsageError` if there is no such version."""
    if not version.isdecimal():
        raise UsageError(f"{version!r} is not a version of {settings.model_full_name}: give its number, or {PREVIOUS!r}.")
    version = str(_version(settings, version).version)  # 03 is 3
    client, before = mlflow.MlflowClient(), champion_version(settings)
    if before not in (None, version):
        # First, so that a champion can always be rolled back.
        client.set_model_version_tag(settings.model_full_name, version, BEFORE_TAG, before)
    client.set_registered_model_alias(settings.model_full_name, CHAMPION, version)
    return Change(version, before)


def roll_back(settings: Settings) -> Change:
    """Make the champion before champion again. Raises `PipelineError` if there was none before."""
    version = champion_version(settings)
    before = _version(settings, version).tags.get(BEFORE_TAG) if version else None
    if version is None or before is None:
        raise PipelineError(f"{settings.model_full_name} had no other champion before: there is nothing to roll back to.")
    _version(settings, before)
    mlflow.MlflowClient().set_registered_model_alias(settings.model_full_name, CHAMPION, before)
    return Change(before, version)


def versions(settings: Settings) -> list[dict[str, Any]]:
    """Every version, the newest first: `version`, `alias`, `created`, `features`, `contamination`, `training_records`,
    `silver_version`, `gate`."""
    client = mlflow.MlflowClient()
    try:
        aliases = client.get_registered_model(settings.model_full_name).aliases
    except MlflowException as error:
        if error.error_code in _NOT_THERE:
            return []
        raise
    found = []
    for held in client.search_model_versions(f"name='{settings.model_full_name}'"):
        one = client.get_model_version(settings.model_full_name, held.version)
        try:
            logged = client.get_run(one.run_id).data.params if one.run_id else {}
        except MlflowException:
            logged = {}  # the run was deleted; the version is still there
        found.append(
            {
                "version": int(one.version),
                "alias": ", ".join(sorted(alias for alias, version in aliases.items() if str(version) == str(one.version))),
                "created": datetime.fromtimestamp(one.creation_timestamp / 1000, UTC).replace(microsecond=0),
                **{name: logged.get(name) for name in ("features", "contamination", "training_records", "silver_version")},
                "gate": one.tags.get(GATE_TAG),
            }
        )
    return sorted(found, key=lambda one: -one["version"])


def _version(settings: Settings, version: str) -> Any:
    try:
        return mlflow.MlflowClient().get_model_version(settings.model_full_name, version)
    except MlflowException as error:
        if error.error_code in _NOT_THERE:
            there = ", ".join(str(one["version"]) for one in reversed(versions(settings))) or "none"
            raise UsageError(f"{settings.model_full_name} has no version {version!r}. Versions: {there}.") from None
        raise
