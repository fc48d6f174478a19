"""What the tests of notebook share."""

from pathlib import Path

from laptop.jobs.dbutils import DBUtils, redactor
from laptop.jobs.notebook import run_notebook
from laptop.jobs.records import NotebookResult

CELL_BREAK = "\n\n# COMMAND ----------\n\n"


def write(folder: Path, name: str, *cells: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.py"
    path.write_text("# Databricks notebook source\n" + CELL_BREAK.join(cells) + "\n", encoding="utf-8")
    return path


def run(tmp_path: Path, *cells: str, spark=None, secrets=None, **dbutils) -> tuple[NotebookResult, str]:
    """Run the cells as one notebook; returns the result and the page."""
    notebook = write(tmp_path / "notebooks", "demo", *cells)
    html = tmp_path / "demo.html"
    secrets = secrets or {}
    result = run_notebook(notebook, spark=spark, dbutils=DBUtils(secrets=secrets, **dbutils), html=html, redact=redactor(secrets))
    return result, html.read_text(encoding="utf-8")
