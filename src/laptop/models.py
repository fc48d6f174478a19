"""The model's versions in the home's own MLflow store, without Spark."""

from pathlib import Path

from rich.console import Console

from laptop.bundle.load import LOCAL_CATALOG, load_bundle
from laptop.folders import find_bundle
from laptop.run import config_dir, prepare_mlflow
from streaming_pipeline.core.errors import PipelineError
from streaming_pipeline.core.settings import Settings
from streaming_pipeline.core.wording import plural
from streaming_pipeline.gold.registry import versions


def model_settings(home: Path, schema: str) -> Settings:
    """Settings that name the bundle's model, MLflow pointed at the home. Raises `PipelineError` if nothing was ever trained there."""
    if not has_models(home):
        raise PipelineError(f"There is no model in {home.resolve()} yet: `streaming-pipeline run` trains one.")
    return laptop_settings(home, schema)


def has_models(home: Path) -> bool:
    """Whether the home has an MLflow store."""
    return (home / "mlflow" / "mlflow.db").is_file()


def laptop_settings(home: Path, schema: str) -> Settings:
    """Settings for the tables of `home` that name its configuration and the bundle's model; MLflow is pointed at its store, if any."""
    root, home = find_bundle(), home.resolve()
    bundle = load_bundle(root, local_home=home)
    if has_models(home):
        prepare_mlflow(home, bundle, {})
    (model,) = bundle.resources["registered_models"].values()
    return Settings(catalog=LOCAL_CATALOG, schema=schema, config_dir=config_dir(home, root / "config"), model_name=model["name"])


def show_versions(settings: Settings, console: Console) -> None:
    """Print every version, the newest first: its aliases, what it was trained on, and what the gate said of it."""
    found = versions(settings)
    if not found:
        raise PipelineError(f"{settings.model_full_name} has no version yet: `streaming-pipeline run` trains one.")
    for one in found:
        alias = f"  [bold]{one['alias']}[/bold]" if one["alias"] else ""
        console.print(f"version {one['version']}{alias}  {one['created']:%Y-%m-%d %H:%M} UTC", soft_wrap=True, highlight=False)
        if one["features"]:
            trained = f"{plural(int(one['training_records']), 'record')} of {one['features']}, contamination {one['contamination']}"
            console.print(f"  trained on {trained}", soft_wrap=True, highlight=False)
        console.print(f"  gate: {one['gate'] or 'was not asked'}", soft_wrap=True, highlight=False, markup=False)
