"""How a run went: of a notebook, of a task, of a job."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path


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


@dataclass
class TaskRun:
    """One task of a run, as it stands now.

    `state` is PENDING, RUNNING, SUCCESS, FAILED, TIMEDOUT, CANCELED, UPSTREAM_FAILED or EXCLUDED. `outcome` is a condition's "true" or
    "false". `rows` and `note` are the task values `records` and `note`, where the notebook set them. `cell` is the cell that failed.
    `children` are the tasks of the job that a `run_job_task` ran.
    """

    key: str
    state: str = "PENDING"
    started: datetime | None = None
    ended: datetime | None = None
    attempts: int = 0
    rows: int | None = None
    note: str = ""
    outcome: str = ""
    error: str = ""
    users_mistake: bool = False
    cell: CellError | None = None
    html: Path | None = None
    children: list["TaskRun"] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        return ((self.ended or datetime.now(UTC)) - self.started).total_seconds() if self.started else 0.0


@dataclass
class JobRun:
    """One run of a job. `state` is RUNNING, SUCCESS, FAILED or CANCELED; a job failed if a task failed on which no other depends."""

    key: str
    name: str
    run_id: str
    run_dir: Path
    parameters: dict[str, str]
    started: datetime
    tasks: list[TaskRun]
    state: str = "RUNNING"
    error: str = ""
    ended: datetime | None = None

    @property
    def seconds(self) -> float:
        return ((self.ended or datetime.now(UTC)) - self.started).total_seconds()

    def all_tasks(self) -> Iterator[tuple[TaskRun, int]]:
        """Every task with its depth: 0 for the job's own, 1 for those of a job that it runs, and so on."""
        yield from _with_depth(self.tasks, 0)


def _with_depth(tasks: list[TaskRun], depth: int) -> Iterator[tuple[TaskRun, int]]:
    for task in tasks:
        yield task, depth
        yield from _with_depth(task.children, depth + 1)
