"""Where the bundle is, and the home of commands that name none: both are found from subfolders, too."""

from pathlib import Path

from streaming_pipeline.core.errors import UsageError


def find_bundle(start: Path | None = None) -> Path:
    """The folder of the nearest `databricks.yml`, from `start` (this folder) upwards; raises `UsageError` if there is none."""
    start = (start or Path.cwd()).resolve()
    for folder in (start, *start.parents):
        if (folder / "databricks.yml").is_file():
            return folder
    raise UsageError(f"No databricks.yml in {start} or above it: go to the folder of the bundle.")


def default_home() -> Path:
    """`.local` beside the bundle; where there is none, of this folder."""
    home = Path(".local")
    try:
        bundle = find_bundle()
    except UsageError:
        return home
    return home if bundle == Path.cwd().resolve() else bundle / home
