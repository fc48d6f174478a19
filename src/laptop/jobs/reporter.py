"""Shows a run while it goes on: a live table of its tasks on a terminal, a line for each task that ended in a pipe.

Briefly, for a run among many: the task at work on a terminal, which vanishes with the run, and nothing in a pipe.
"""

import contextlib
from collections.abc import Iterator

from rich.console import Console, Group
from rich.live import Live
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from laptop.jobs.records import JobRun, TaskRun
from streaming_pipeline.core.foreign_text import PAGE, harmless
from streaming_pipeline.core.wording import plural

_STYLES = {
    "SUCCESS": "green",
    "FAILED": "bold red",
    "TIMEDOUT": "bold red",
    "UPSTREAM_FAILED": "red",
    "CANCELED": "yellow",
    "RUNNING": "yellow",
    "EXCLUDED": "dim",
    "PENDING": "dim",
}


class Reporter:
    """Writes to `console`. When a task's notebook fails, the failing cell's code and the error are shown too."""

    def __init__(self, console: Console, brief: bool = False) -> None:
        self._console, self._brief = console, brief
        console.file = console.file  # pinned: while a notebook runs, sys.stdout is the notebook's own

    @contextlib.contextmanager
    def showing(self, run: JobRun) -> Iterator[None]:
        """Keep the table of `run` (briefly: a line) up to date within the block; on a terminal the table stays there afterwards."""
        if not self._console.is_terminal:
            yield
            return
        # Notebooks' own output goes to their pages, so nothing else needs to pass through the live display.
        with Live(
            get_renderable=lambda: _line(run) if self._brief else _table(run),
            console=self._console,
            refresh_per_second=4,
            transient=self._brief,
            redirect_stdout=False,
            redirect_stderr=False,
        ):
            yield

    def say(self, text: str) -> None:
        """One line beside the table."""
        self._console.print(Text(harmless(text, PAGE, is_lines=True)), soft_wrap=True)

    def task_ended(self, task: TaskRun, depth: int = 0) -> None:
        """Tell that `task` has ended: how and how long it took, and, if its notebook failed, where and why; briefly: nothing."""
        if self._brief:
            return
        if not self._console.is_terminal:
            facts = [f"{task.state:<15}", "  " * depth + task.key]
            facts += [f"{task.seconds:.1f} s"] if task.started else []
            facts += [plural(task.rows, "row")] if task.rows is not None else []
            facts += [f"→ {task.outcome}"] if task.outcome else []
            facts += [harmless(task.note)] if task.note else []
            self.say("  ".join(facts))
        if task.cell and not task.users_mistake:  # whose message says it all
            self._console.print(_failure(task), soft_wrap=True)
        elif task.error and not task.children:
            self.say(f"{task.key}: {task.error}")


def _line(run: JobRun) -> Text:
    at_work = [task.key for task, _ in run.all_tasks() if task.state == "RUNNING"]
    return Text(f"{run.seconds:5.1f} s  {at_work[-1] if at_work else ''}", style="dim")


def _table(run: JobRun) -> Table:
    table = Table(title=run.name, title_justify="left", box=None, pad_edge=False)
    table.add_column("task")
    table.add_column("state")
    table.add_column("seconds", justify="right")
    table.add_column("rows", justify="right")
    table.add_column("note", overflow="fold")
    for task, depth in run.all_tasks():
        table.add_row(
            "  " * depth + task.key + (f" → {task.outcome}" if task.outcome else ""),
            Text(task.state, style=_STYLES[task.state]),
            f"{task.seconds:.1f}" if task.started else "",
            f"{task.rows:,}" if task.rows is not None else "",
            Text(harmless(task.note)),
        )
    return table


def _failure(task: TaskRun) -> Group:
    cell = task.cell
    code = Syntax("", "sql" if cell.kind == "sql" else "python", background_color="default").highlight(cell.source)
    code.rstrip()
    return Group(
        Text(f"\n{task.key} failed in {cell.notebook.name}, line {cell.line}:", style="bold"),
        code,
        Text(f"\n{harmless(cell.details, PAGE, is_lines=True)}\n", style="red"),
    )
