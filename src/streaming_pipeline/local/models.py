"""The model's versions in the home's own MLflow store, without Spark."""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from streaming_pipeline.errors import PipelineError
from streaming_pipeline.local.bundle import LOCAL_CATALOG, load_bundle
from streaming_pipeline.local.job import find_bundle, prepare_mlflow
from streaming_pipeline.model.registry import versions
from streaming_pipeline.settings import Settings


def model_settings(home: Path, schema: str) -> Settings:
    """Settings that name the bundle's model, MLflow pointed at the home. Raises `PipelineError` if nothing was ever trained there."""
    home = home.resolve()
    if not (home / "mlflow" / "mlflow.db").is_file():
        raise PipelineError(f"There is no model in {home} yet: `streaming-pipeline run` trains one.")
    bundle = load_bundle(find_bundle(), local_home=home)
    prepare_mlflow(home, bundle, {})
    (model,) = bundle.resources["registered_models"].values()
    return Settings(catalog=LOCAL_CATALOG, schema=schema, model_name=model["name"])


def show_versions(settings: Settings, console: Console) -> None:
    """One line for each version, the newest first."""
    found = versions(settings)
    if not found:
        raise PipelineError(f"{settings.model_full_name} has no version yet: `streaming-pipeline run` trains one.")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in found[0]:
        table.add_column(name, justify="right" if name in ("version", "training_records") else "left", overflow="fold")
    for one in found:
        table.add_row(*("" if value is None else str(value) for value in one.values()))
    console.print(table)
