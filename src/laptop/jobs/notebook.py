"""Databricks notebooks in source format on a laptop: read, run in one process, and kept as a page to look at.

IPython runs the cells, nbconvert writes the page. A notebook gets `spark`, `dbutils`, `display` and `displayHTML`, its own folder as
working directory and on the import path, and a namespace of its own, as in a workspace.
"""

import contextlib
import re
import sys
import sysconfig
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
import sqlparse
from IPython.display import display as ipython_display
from matplotlib.figure import Figure
from pyspark.sql import DataFrame

from laptop.interrupts import interrupt_behind
from laptop.jobs.dbutils import DBUtils, NotebookExit
from laptop.jobs.notebook_page import cell_node, notebook_page, pandas_table, spark_table
from laptop.jobs.notebook_source import MAGIC, Cell, notebook_file, parse_notebook, run_target
from laptop.jobs.records import CellError, NotebookResult
from laptop.jobs.shell import Shell, running_shell
from streaming_pipeline.core.errors import PipelineError, damaged_table

_MARKER = re.compile(r"(?<![:\w]):([A-Za-z_]\w*)")
_MAX_ERROR_LINES = 60
_RUNNER = Path(__file__).resolve().parents[1]
_INSTALLED = tuple(Path(path).resolve() for path in {*sysconfig.get_paths().values(), sys.prefix, sys.base_prefix})


class _CellFailed(Exception):
    def __init__(self, error: CellError) -> None:
        super().__init__(error.message)
        self.error = error


def run_notebook(
    path: Path, *, spark: Any, dbutils: DBUtils, html: Path, redact: Callable[[str], str] = lambda text: text, show_tables: bool = True
) -> NotebookResult:
    """Run the notebook `path` and keep what it showed in the file `html`.

    A cell that fails ends the notebook and is told in the result. Ctrl-C and other `BaseException`s leave this function as they came,
    with the page written. `redact` is applied to all that a cell put out. Without `show_tables` no Spark query is made to be looked at.
    Raises `UsageError` when the notebook cannot be read.
    """
    file = notebook_file(path).resolve()
    cells = parse_notebook(file)
    started, start = datetime.now(UTC), time.monotonic()
    nodes: list[nbformat.NotebookNode] = []
    state, exit_value, error = "CANCELED", None, None
    with running_shell() as shell, contextlib.chdir(file.parent):
        sys.path.insert(0, str(file.parent))
        kernel = _Kernel(shell, spark, dbutils, file, redact, show_tables)
        try:
            for cell in cells:
                nodes.append(cell_node(cell))
                shell.outputs = nodes[-1].get("outputs", [])
                cell_start = time.monotonic()
                try:
                    kernel.run(file, cell)
                finally:
                    nodes[-1].metadata["seconds"] = time.monotonic() - cell_start
            state = "SUCCESS"
        except NotebookExit as exit_:
            state, exit_value = "SUCCESS", exit_.value
            shell.record("display_data", data={"text/plain": f"The notebook ended here with: {exit_value}"}, metadata={})
        except _CellFailed as failed:
            state, error = "FAILED", failed.error
            nodes[-1].metadata["state"] = "failed"
            shell.record("error", ename="", evalue=error.message, traceback=[error.details])
        except BaseException as interrupt:
            shell.record("error", ename="", evalue="", traceback=[f"Interrupted: {interrupt or type(interrupt).__name__}"])
            raise
        finally:
            nodes += [cell_node(cell, not_run=True) for cell in cells[len(nodes) :]]
            facts = {"state": state, "started": f"{started:%Y-%m-%d %H:%M:%S} UTC", "seconds": time.monotonic() - start}
            html.write_text(notebook_page(file.stem, facts, nodes, redact), encoding="utf-8")
    return NotebookResult(exit_value, error)


class _Kernel:
    """Runs the cells of one notebook, and of those that it `%run`s, in one namespace."""

    def __init__(self, shell: Shell, spark: Any, dbutils: DBUtils, file: Path, redact: Callable[[str], str], show_tables: bool) -> None:
        self.shell, self.spark, self.dbutils, self.redact, self.show_tables = shell, spark, dbutils, redact, show_tables
        self.files = [file]
        shell.user_ns.update(spark=spark, dbutils=dbutils, display=self.display, displayHTML=self.display_html)

    def run(self, file: Path, cell: Cell) -> None:
        """Run one cell of `file`. Raises `_CellFailed`, `NotebookExit` or whatever interrupted it."""
        try:
            match cell.kind:
                case "python":
                    self._python(file, cell)
                case "sql":
                    self._sql(cell)
                case "run":
                    target = run_target(file, cell).resolve()
                    self.files.append(target)
                    for inner in parse_notebook(target):
                        self.run(target, inner)
                case "pip":
                    self._show("Nothing to install: the packages are already here.")
                case "md":
                    pass
        except (_CellFailed, NotebookExit):
            raise
        except (Exception, SystemExit) as error:
            if interrupt := interrupt_behind(error):
                raise interrupt from None
            raise _CellFailed(self._describe(error, file, cell)) from error

    def _python(self, file: Path, cell: Cell) -> None:
        self.shell.compile.file = str(file)
        # Empty lines in front make line numbers in errors and warnings those of the file.
        result = self.shell.run_cell("\n" * (cell.line - 1) + cell.source, store_history=False)
        if error := result.error_before_exec or result.error_in_exec:
            raise error  # IPython swallows whatever a cell raises, Ctrl-C too

    def _sql(self, cell: Cell) -> None:
        widgets = self.dbutils.widgets.getAll()
        frame = None
        for statement in sqlparse.split(sqlparse.format(cell.source, strip_comments=True)):
            if statement := statement.strip().rstrip(";").strip():
                arguments = {name: widgets[name] for name in _MARKER.findall(statement) if name in widgets}
                frame = self.spark.sql(statement, args=arguments) if arguments else self.spark.sql(statement)
        if frame is not None:  # as in a workspace, the last result is shown, and Python can use it
            self.shell.user_ns["_sqldf"] = frame
            if frame.columns:
                self.display(frame)
            else:
                self._show("OK")

    def display(self, *values: Any) -> None:
        """The workspace's `display`: tables for data frames, pictures for figures, else the value's own rich form."""
        for value in values:
            if isinstance(value, DataFrame) and not self.show_tables:
                self._show("Not shown by a run among many: query the table.")
            elif isinstance(value, DataFrame):
                self.display_html(spark_table(value))
            elif isinstance(value, pd.DataFrame):
                self.display_html(pandas_table(value))
            elif isinstance(value, Figure):
                import matplotlib.pyplot as plt

                ipython_display(value)
                plt.close(value)  # else the end of the cell shows it again
            else:
                ipython_display(value)

    def display_html(self, html: str) -> None:
        """The workspace's `displayHTML`."""
        self.shell.display_pub.publish({"text/html": html})

    def _show(self, text: str) -> None:
        self.shell.display_pub.publish({"text/plain": text})

    def _describe(self, error: BaseException, file: Path, cell: Cell) -> CellError:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
        if isinstance(error, SyntaxError) and error.filename == str(file):
            lines = [error.lineno]
        if not isinstance(error, PipelineError):
            error = damaged_table(error) or error
        users_mistake = isinstance(error, PipelineError)
        message = str(error) if users_mistake else "".join(traceback.format_exception_only(error)).strip()
        details = message if users_mistake else self._short_traceback(error)
        return CellError(
            notebook=file,
            kind=cell.kind,
            line=next((line for line in reversed(lines) if line), cell.line),
            source=cell.source,
            message=_first_lines(self.redact(message)),
            details=_first_lines(self.redact(details)),
            users_mistake=users_mistake,
        )

    def _short_traceback(self, error: BaseException) -> str:
        """The traceback with only the frames of the notebooks, of what lies beside them, and of the bundle's own library."""
        summary: traceback.TracebackException | None = traceback.TracebackException.from_exception(error)
        whole = summary
        while summary:
            frames = [frame for frame in summary.stack if self._shown_name(frame.filename)]
            summary.stack = traceback.StackSummary.from_list(
                [(self._shown_name(f.filename), f.lineno, f.name, (f.line or "").removeprefix(MAGIC).strip()) for f in frames]
            )
            if getattr(summary, "filename", None):  # a SyntaxError's own
                summary.filename = self._shown_name(summary.filename) or summary.filename
            summary = summary.__cause__ or (None if summary.__suppress_context__ else summary.__context__)
        return "".join(whole.format()).rstrip()

    def _shown_name(self, filename: str) -> str:
        """A frame's file as it is told, without the machine's folders; empty for a frame that is not told."""
        path = Path(filename)
        beside = [file.parent.parent for file in self.files if path.is_relative_to(file.parent)]
        if any(path.is_relative_to(folder) for folder in (_RUNNER, *_INSTALLED)):
            return ""
        imported_from = sorted(
            (Path(entry) for entry in sys.path if entry and path.is_relative_to(entry)), key=lambda folder: -len(str(folder))
        )
        return next((path.relative_to(folder).as_posix() for folder in (*beside, *imported_from)), "")


def _first_lines(text: str) -> str:
    lines = text.splitlines()
    if len(lines) <= _MAX_ERROR_LINES:
        return text
    return "\n".join([*lines[:_MAX_ERROR_LINES], f"… {len(lines) - _MAX_ERROR_LINES} more lines"])
