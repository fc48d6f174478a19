"""`sql` without a query: many questions to one Spark, from a prompt or a pipe."""

import sys
from pathlib import Path

import sqlparse
from rich.console import Console

from laptop.sql import check_has_tables, render, run_query
from streaming_pipeline.core.errors import PipelineError, UsageError
from streaming_pipeline.core.wording import plural


def answer_questions(home: Path, schema: str, form: str, console: Console) -> int:
    """Answer queries until the input ends; returns the exit code.

    At a terminal a query ends with `;` or an empty line, `\\q` or Ctrl-D ends the prompt, and a query that fails does not. From a pipe a
    query ends with `;`, and the first one that fails ends it all with a `UsageError`.
    """
    check_has_tables(home, schema)
    if not sys.stdin.isatty():
        queries = _queries(sys.stdin.read())
        for number, text in enumerate(queries, start=1):
            try:
                render(*run_query(home, text, schema), form, console)
            except UsageError as error:
                left = f" {plural(len(queries) - number, 'query was', 'queries were')} left." if number < len(queries) else ""
                raise UsageError(f"Query {number} of {len(queries)}: {error}{left}" if len(queries) > 1 else str(error)) from None
        return 0
    import readline  # noqa: F401 - gives input() its line editing and history

    print(f"Queries over the tables of schema {schema}. A semicolon or an empty line ends a query, \\q, exit or Ctrl-D the prompt.")
    while (typed := _typed()) is not None:
        for text in _queries(typed):
            try:
                render(*run_query(home, text, schema), form, console)
            except PipelineError as error:
                console.print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
            except KeyboardInterrupt:
                print("The query was stopped.")
    return 0


def _typed() -> str | None:
    """What was typed up to a semicolon or an empty line; None at the end."""
    lines: list[str] = []
    while not lines or (lines[-1] and not lines[-1].endswith(";")):
        try:
            line = input("...> " if lines else "sql> ").rstrip()
        except KeyboardInterrupt:
            lines = []  # takes back what was begun
            print()
            continue
        except EOFError:
            print()
            return "\n".join(lines) or None
        if line.rstrip(";") in ("\\q", "exit", "quit") and not lines:
            return None
        lines += [line] if line or lines else []
    return "\n".join(lines)


def _queries(text: str) -> list[str]:
    """The queries of a text; comments alone are none."""
    return [part for part in sqlparse.split(text) if sqlparse.format(part, strip_comments=True).strip("; \n")]
