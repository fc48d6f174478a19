"""Each query that people run stands here once, as a file; table names are bare, so that a schema has to be in use."""

from importlib.resources import files


def query(name: str) -> str:
    """The text of `name`.sql. Raises `FileNotFoundError` for an unknown name."""
    return (files(__package__) / f"{name}.sql").read_text(encoding="utf-8").strip()
