"""What the tests of runner share."""

import io
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from laptop.bundle.load import Bundle
from laptop.jobs.records import JobRun
from laptop.jobs.reporter import Reporter
from laptop.jobs.runner import run_job
from streaming_pipeline.core.errors import UsageError

STUB_SPARK = SimpleNamespace(streams=SimpleNamespace(active=[]))

DEAF = """
import signal
while True:
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)  # interrupted from here on
        while True:
            pass
    except BaseException:
        pass
"""


class Bench:
    """A bundle of job dicts and notebooks in a folder, and what a run of one of its jobs printed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.jobs: dict[str, dict] = {}
        self.printed = io.StringIO()
        self.run_dir = folder / "runs" / "7"

    def notebook(self, name: str, code: str = "pass") -> dict:
        """Write a one-cell notebook; returns the task that runs it."""
        (self.folder / f"{name}.py").write_text(f"# Databricks notebook source\n{code}\n", encoding="utf-8")
        return {"task_key": name, "notebook_task": {"notebook_path": str(self.folder / name)}}

    def job(self, *tasks: dict, key: str = "main", **settings) -> None:
        self.jobs[key] = {"name": f"The {key} job", "tasks": list(tasks), **settings}

    def run(self, key: str = "main", *, secrets=None, terminal: bool = False, spark_for_task=lambda _: STUB_SPARK, **parameters) -> JobRun:
        console = Console(file=self.printed, width=120, force_terminal=terminal)
        return run_job(
            Bundle(self.folder, "dev", {"resources": {"jobs": self.jobs}}),
            key,
            parameters=parameters,
            spark_for_task=spark_for_task,
            secrets=secrets or {},
            run_dir=self.run_dir,
            run_id="7",
            reporter=Reporter(console),
        )

    def refusal(self, key: str = "main", **parameters) -> str:
        """The message with which the job is refused, before anything ran."""
        with pytest.raises(UsageError) as error:
            self.run(key, **parameters)
        assert not self.run_dir.exists()
        return str(error.value)

    def log(self) -> list[str]:
        """What notebooks wrote with `LOG`, in order."""
        return (self.folder / "log").read_text().split("\n")[:-1]


LOG = "def log(*values):\n    with open('log', 'a') as file:\n        print(*values, file=file)\n"


@pytest.fixture
def bench(tmp_path) -> Bench:
    return Bench(tmp_path)


def states(run: JobRun) -> dict[str, str]:
    return {task.key: task.state for task in run.tasks}
