"""A Databricks notebook in source format: its file, read into cells."""

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from streaming_pipeline.core.errors import UsageError

HEADER = "# Databricks notebook source"
SEPARATOR = "# COMMAND ----------"
MAGIC = "# MAGIC"

_TITLE = re.compile(r"# DBTITLE \d+,(.*)")
_MAGIC_LINE = re.compile(r"%([\w-]+)[ \t]*(.*)")


@dataclass(frozen=True)
class Cell:
    """One cell: `kind` is python, sql, md, run or pip; `line` is the number of the first line of `source` in the file."""

    kind: str
    source: str
    line: int
    title: str = ""


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
            check_notebook(run_target(file, cell), (*within, file))


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
    magic = numbered[0][1].startswith(MAGIC)
    for number, text in numbered:
        if text.startswith(MAGIC) != magic and (not magic or text.strip()):
            raise UsageError(f"{path}, line {number}: a cell is either all '{MAGIC}' lines or none.")
    first = numbered[0][0]
    if not magic:
        return Cell("python", "\n".join(text for _, text in numbered), first, title)
    texts = [text.removeprefix(MAGIC).removeprefix(" ") for _, text in numbered]
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


def run_target(notebook: Path, cell: Cell) -> Path:
    """The file that a %run cell names, relative to the notebook's folder."""
    name = cell.source.strip().strip("\"'")
    try:
        return notebook_file(notebook.parent / name)
    except UsageError:
        raise UsageError(f"{notebook}, line {cell.line}: %run {name}: there is no such notebook.") from None
