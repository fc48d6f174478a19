"""Databricks notebooks in source format on a laptop: read, run in one process, and kept as a page to look at.

IPython runs the cells, nbconvert writes the page. A notebook gets `spark`, `dbutils`, `display` and `displayHTML`, its own folder as
working directory and on the import path, and a namespace of its own, as in a workspace.
"""

import contextlib
import itertools
import re
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
import sqlparse
from IPython.display import display as ipython_display
from matplotlib.figure import Figure
from pyspark.sql import DataFrame

from streaming_pipeline.errors import PipelineError, UsageError, damaged_table
from streaming_pipeline.local.dbutils import DBUtils, NotebookExit
from streaming_pipeline.local.interrupts import interrupt_behind
from streaming_pipeline.local.notebook_page import cell_node, notebook_page, pandas_table, spark_table
from streaming_pipeline.local.shell import Shell, running_shell

HEADER = "# Databricks notebook source"
SEPARATOR = "# COMMAND ----------"

_MAGIC = "# MAGIC"
_TITLE = re.compile(r"# DBTITLE \d+,(.*)")
_MAGIC_LINE = re.compile(r"%([\w-]+)[ \t]*(.*)")
_MARKER = re.compile(r"(?<![:\w]):([A-Za-z_]\w*)")
_MAX_ERROR_LINES = 60
_PACKAGE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Cell:
    """One cell: `kind` is python, sql, md, run or pip; `line` is the number of the first line of `source` in the file."""

    kind: str
    source: str
    line: int
    title: str = ""


@dataclass(frozen=True)
class CellError:
    """Why a notebook stopped. `notebook` is the file of the cell that failed, which a `%run` may have brought in.

    `users_mistake`: a `PipelineError`, whose message says it all; `details` is then that message, else a short traceback.
    """

    notebook: Path
    kind: str
    line: int
    source: str
    message: str
    details: str
    users_mistake: bool


@dataclass(frozen=True)
class NotebookResult:
    """How a notebook ended: `error` is None when all its cells ran or it called `dbutils.notebook.exit(exit_value)`."""

    exit_value: str | None
    error: CellError | None


class _CellFailed(Exception):
    def __init__(self, error: CellError) -> None:
        super().__init__(error.message)
        self.error = error


# ---------------------------------------------------------------------------------------------------------------- reading


def notebook_file(path: Path) -> Path:
    """The file of the notebook `path`, given with or without `.py`. Raises `UsageError` when there is none."""
    for candidate in (path, path.with_name(path.name + ".py")):
        if candidate.is_file():
            return candidate
    raise UsageError(f"Notebook {path} does not exist (nor {path.name}.py beside it).")


def parse_notebook(path: Path) -> list[Cell]:
    """The cells of a notebook file. Raises `UsageError` naming file and line for what is no source-format notebook or no known magic."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not a notebook in source format: it is not UTF-8 text.") from None
    if not lines or lines[0].rstrip() != HEADER:
        raise UsageError(f"{path} is not a notebook in source format: its first line must be {HEADER!r}.")
    starts = [1, *(number for number, line in enumerate(lines, 1) if line.rstrip() == SEPARATOR), len(lines) + 1]
    cells = (_parse_cell(path, lines[start : end - 1], start + 1) for start, end in itertools.pairwise(starts))
    return [cell for cell in cells if cell]


def check_notebook(path: Path, within: tuple[Path, ...] = ()) -> None:
    """Read a notebook and all that it `%run`s, without running anything. Raises `UsageError` for what could not run."""
    file = notebook_file(path).resolve()
    if file in within:
        raise UsageError(f"{within[-1]}: %run of {file.name} goes round in a circle: {' → '.join(f.name for f in (*within, file))}.")
    for cell in parse_notebook(file):
        if cell.kind == "run":
            check_notebook(_run_target(file, cell), (*within, file))


def _parse_cell(path: Path, lines: Sequence[str], line: int) -> Cell | None:
    title = ""
    numbered = [(number, text) for number, text in enumerate(lines, line)]
    while numbered and not numbered[0][1].strip():
        del numbered[0]
    if numbered and (match := _TITLE.match(numbered[0][1])):
        title = match[1].strip()
        del numbered[0]
    while numbered and not numbered[0][1].strip():
        del numbered[0]
    while numbered and not numbered[-1][1].strip():
        del numbered[-1]
    if not numbered:
        return None
    magic = numbered[0][1].startswith(_MAGIC)
    for number, text in numbered:
        if text.startswith(_MAGIC) != magic and (not magic or text.strip()):
            raise UsageError(f"{path}, line {number}: a cell is either all '{_MAGIC}' lines or none.")
    first = numbered[0][0]
    if not magic:
        return Cell("python", "\n".join(text for _, text in numbered), first, title)
    texts = [text.removeprefix(_MAGIC).removeprefix(" ") for _, text in numbered]
    match = _MAGIC_LINE.match(texts[0])
    if not match or match[1] not in ("md", "sql", "run", "pip", "python"):
        name = f"%{match[1]}" if match else texts[0].strip()
        raise UsageError(f"{path}, line {first}: magic {name!r} is not offered on a laptop; %md, %sql, %run, %pip and %python are.")
    kind = match[1]
    if kind == "pip":
        for number, text in enumerate(texts, first):
            if text.strip() and not text.startswith("%pip"):
                raise UsageError(f"{path}, line {number}: a %pip cell holds %pip lines only.")
        return Cell(kind, "\n".join(texts), first, title)
    body = [match[2], *texts[1:]]
    if kind == "run" and (any(text.strip() for text in texts[1:]) or len(match[2].strip(" \"'").split(" $")) > 1):
        raise UsageError(f"{path}, line {first}: %run takes one notebook's path, alone in its cell and without arguments.")
    while body and not body[0].strip():
        del body[0]
        first += 1
    return Cell(kind, "\n".join(body), first, title)


def _run_target(notebook: Path, cell: Cell) -> Path:
    """The file that a %run cell names, relative to the notebook's folder."""
    name = cell.source.strip().strip("\"'")
    try:
        return notebook_file(notebook.parent / name)
    except UsageError:
        raise UsageError(f"{notebook}, line {cell.line}: %run {name}: there is no such notebook.") from None


# ---------------------------------------------------------------------------------------------------------------- running


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
                    target = _run_target(file, cell).resolve()
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
                self._show("Not shown by a run among many: `streaming-pipeline sql` shows what the tables hold now.")
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
        """The traceback with only the frames of the notebooks, of what lies beside them, and of this project's library."""
        summary: traceback.TracebackException | None = traceback.TracebackException.from_exception(error)
        whole = summary
        while summary:
            frames = [frame for frame in summary.stack if self._shown_name(frame.filename)]
            summary.stack = traceback.StackSummary.from_list(
                [(self._shown_name(f.filename), f.lineno, f.name, (f.line or "").removeprefix(_MAGIC).strip()) for f in frames]
            )
            if getattr(summary, "filename", None):  # a SyntaxError's own
                summary.filename = self._shown_name(summary.filename) or summary.filename
            summary = summary.__cause__ or (None if summary.__suppress_context__ else summary.__context__)
        return "".join(whole.format()).rstrip()

    def _shown_name(self, filename: str) -> str:
        """A frame's file as it is told, without the machine's folders; empty for a frame that is not told."""
        path = Path(filename)
        if path.is_relative_to(_PACKAGE):
            return "" if path.is_relative_to(_PACKAGE / "local") else path.relative_to(_PACKAGE.parent).as_posix()
        folder = next((file.parent for file in self.files if path.is_relative_to(file.parent)), None)
        return path.relative_to(folder.parent).as_posix() if folder else ""


def _first_lines(text: str) -> str:
    lines = text.splitlines()
    if len(lines) <= _MAX_ERROR_LINES:
        return text
    return "\n".join([*lines[:_MAX_ERROR_LINES], f"… {len(lines) - _MAX_ERROR_LINES} more lines"])
