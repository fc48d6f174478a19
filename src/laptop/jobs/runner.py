"""Runs one job of the bundle on this machine: its task graph, with the notebooks as they are, as a workspace would.

Tasks run one after another on the main thread, each notebook with a new Spark session. What they showed is kept in the run's folder.
"""

import contextlib
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from laptop.bundle.load import Bundle
from laptop.interrupts import end_work
from laptop.jobs.dbutils import DBUtils, redactor
from laptop.jobs.graph import FAILED_STATES, DynamicValues, check_job, check_parameters, compare, decide, leaves, ordered
from laptop.jobs.notebook import run_notebook
from laptop.jobs.records import JobRun, TaskRun
from laptop.jobs.run_page import write_run_page
from streaming_pipeline.core.errors import PipelineError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from laptop.jobs.reporter import Reporter

MAX_RETRY_PAUSE_SECONDS = 5.0
"""A job's `min_retry_interval_millis` is made for a cluster; nobody waits minutes for a laptop."""
INTERRUPT_AGAIN_SECONDS = 30.0
"""A task over its time is interrupted as often, until it ends: code may swallow an interrupt, and its clean-up may wait for a server."""
GRACE_SECONDS = 120.0
"""A task that has not ended so long after its time ends with the whole process."""


class TimeLimitReached(KeyboardInterrupt):
    """A task or job ran longer than its `timeout_seconds`.

    A `KeyboardInterrupt`, as that is the one exception after which py4j gives up the connection it was waiting on; after any other,
    the next call to Spark would wait for the interrupted one's answer.
    """


def run_job(
    bundle: Bundle,
    job_key: str,
    *,
    parameters: Mapping[str, str],
    spark_for_task: "Callable[[str], SparkSession]",
    secrets: Mapping[str, str],
    plain: Collection[str] = (),
    run_dir: Path,
    run_id: str,
    reporter: "Reporter",
    show_tables: bool = True,
) -> JobRun:
    """Run a job and return how it went; `<run_dir>/index.html` and a page for each notebook are written.

    `parameters` override the job's defaults, taken as they are. `spark_for_task` gives the session of a task, by its key, each
    time that its notebook runs: a new one, or one that no other task has.
    `secrets` is what the notebooks find in every secret scope; their values stand in no page and no message, but for those of the keys in
    `plain`. Without `show_tables` what notebooks would only display of tables is not asked for.
    Raises `UsageError` before anything runs for a job that cannot run here or a parameter that it does not have, and
    `KeyboardInterrupt` after Ctrl-C, with the pages written. A task that fails is no exception: read `JobRun.state`.
    """
    check_job(bundle, job_key)
    check_parameters(bundle.job(job_key), job_key, parameters)
    run_dir = run_dir.resolve()
    run_dir.mkdir(parents=True, exist_ok=True)
    runner = _Runner(bundle, spark_for_task, dict(secrets), plain, run_dir, run_id, reporter, show_tables)
    runner.run = run = runner.new_run(job_key, parameters)
    with reporter.showing(run):
        try:
            runner.run_tasks(run)
        finally:
            runner.write_page()
    return run


class _Runner:
    def __init__(
        self,
        bundle: Bundle,
        spark_for_task: "Callable[[str], SparkSession]",
        secrets: dict[str, str],
        plain: Collection[str],
        run_dir: Path,
        run_id: str,
        reporter: "Reporter",
        show_tables: bool,
    ) -> None:
        self.bundle, self.spark_for_task, self.secrets = bundle, spark_for_task, secrets
        self.run_dir, self.run_id, self.reporter, self.show_tables = run_dir, run_id, reporter, show_tables
        self.redact = redactor({key: value for key, value in secrets.items() if key not in plain})
        self.run: JobRun | None = None

    def new_run(self, job_key: str, parameters: Mapping[str, str]) -> JobRun:
        job = self.bundle.job(job_key)
        started = datetime.now(UTC)
        values = DynamicValues(job_key, job.get("name", job_key), self.run_id, started)
        defaults = {parameter["name"]: parameter.get("default") for parameter in job.get("parameters") or []}
        return JobRun(
            key=job_key,
            name=values.job_name,
            run_id=self.run_id,
            run_dir=self.run_dir,
            parameters={name: parameters[name] if name in parameters else values.fill(text) for name, text in defaults.items()},
            started=started,
            tasks=[TaskRun(task["task_key"]) for task in ordered(job["tasks"])],
        )

    def write_page(self) -> None:
        write_run_page(self.run, self.run_dir, self.redact)

    def run_tasks(self, run: JobRun, above: tuple[str, ...] = ()) -> None:
        """Run the tasks of `run`; `above` are the keys of the `run_job_task`s that led here."""
        job = self.bundle.job(run.key)
        values = DynamicValues(run.key, run.name, run.run_id, run.started, run.parameters)
        tasks = {task.key: task for task in run.tasks}
        limit = None
        try:
            with _time_limit(job.get("timeout_seconds"), partial(self._end_process, f"Job {run.key!r}")) as limit:
                for definition in ordered(job["tasks"]):
                    task = tasks[definition["task_key"]]
                    self._run_task(definition, task, values, {t.key: t.outcome for t in run.tasks}, above)
                    values.states[task.key] = task.state
                    self._tell(task, above)
            last = leaves(job["tasks"])
            run.state = "FAILED" if any(task.state in FAILED_STATES for task in run.tasks if task.key in last) else "SUCCESS"
        except TimeLimitReached as reached:
            if reached is not limit:
                raise
            run.state = "FAILED"
            run.error = f"Job {run.key!r} ran longer than its timeout_seconds, {job['timeout_seconds']} s."
            self.reporter.say(run.error)
        finally:
            run.ended = datetime.now(UTC)
            if run.state == "RUNNING":
                run.state = "CANCELED"
            for task in run.tasks:
                if task.state in ("PENDING", "RUNNING"):
                    task.state = "CANCELED"
                    self._tell(task, above)

    def _end_process(self, what: str) -> None:
        """End what does not end: called in a thread of its own, while the main thread is busy and heeds no interrupt.

        As after `kill -9`, the tables hold nothing half-written, and the next run goes on.
        """
        said = f"{what} ran longer than its timeout_seconds and did not end when it was interrupted: the process ends."
        self.run.state, self.run.error, self.run.ended = "FAILED", said, datetime.now(UTC)
        for task, _ in self.run.all_tasks():
            if task.state == "RUNNING":
                task.state, task.ended = "TIMEDOUT", self.run.ended
            elif task.state == "PENDING":
                task.state = "CANCELED"
        with contextlib.suppress(Exception):
            self.write_page()
        with contextlib.suppress(OSError):  # not by the reporter, whose terminal the main thread may hold
            os.write(2, f"{said}\n".encode())
        os._exit(1)

    def _tell(self, task: TaskRun, above: tuple[str, ...]) -> None:
        self.reporter.task_ended(task, depth=len(above))
        self.write_page()

    def _run_task(
        self, definition: Mapping[str, Any], task: TaskRun, values: DynamicValues, outcomes: Mapping[str, str], above: tuple[str, ...]
    ) -> None:
        decision = decide(definition, values.states, outcomes)
        if decision != "RUN":
            task.state = decision
            return
        task.state, task.started = "RUNNING", datetime.now(UTC)
        retries = int(definition.get("max_retries") or 0)
        pause = min(int(definition.get("min_retry_interval_millis") or 0) / 1000, MAX_RETRY_PAUSE_SECONDS)
        try:
            while True:
                task.attempts += 1
                values.attempts[task.key] = task.attempts
                can_heal = self._attempt(definition, task, values, above)
                if task.state == "SUCCESS" or not can_heal or 0 <= retries < task.attempts:  # -1: for ever
                    break
                self.reporter.say(f"{task.key}: attempt {task.attempts} failed, trying again: {_cause(task)}")
                task.state, task.error, task.cell = "RUNNING", "", None
                time.sleep(pause)
        finally:
            task.ended = datetime.now(UTC)
            set_by_task = values.task_values.get(task.key, {})
            records = set_by_task.get("records")
            task.rows = records if isinstance(records, int) else None
            task.note = str(set_by_task.get("note") or "")

    def _attempt(self, definition: Mapping[str, Any], task: TaskRun, values: DynamicValues, above: tuple[str, ...]) -> bool:
        """Run a task once and put down how it ended; returns whether another attempt could end better."""
        limit = None
        try:
            with _time_limit(definition.get("timeout_seconds"), partial(self._end_process, f"Task {task.key!r}")) as limit:
                if "condition_task" in definition:
                    condition = {side: values.fill(text, task.key) for side, text in definition["condition_task"].items()}
                    task.outcome = str(compare(condition["left"], condition["op"], condition["right"])).lower()
                elif "run_job_task" in definition:
                    return self._run_called_job(definition["run_job_task"], task, values, above)
                else:
                    self._run_notebook(definition["notebook_task"], task, values, above)
                task.state = "FAILED" if task.cell else "SUCCESS"
                return not task.users_mistake
        except TimeLimitReached as reached:
            if reached is not limit:
                raise
            task.state, task.error = (
                "TIMEDOUT",
                f"Task {task.key!r} ran longer than its timeout_seconds, {definition['timeout_seconds']} s.",
            )
            return bool(definition.get("retry_on_timeout"))
        except PipelineError as error:
            task.state, task.error, task.users_mistake = "FAILED", self.redact(str(error)), True
            return False
        except Exception as error:  # such as a Spark session that does not start
            task.state, task.error = "FAILED", self.redact(f"{type(error).__name__}: {error}")
            return True

    def _run_notebook(self, notebook: Mapping[str, Any], task: TaskRun, values: DynamicValues, above: tuple[str, ...]) -> None:
        own = {name: values.fill(text, task.key) for name, text in (notebook.get("base_parameters") or {}).items()}
        dbutils = DBUtils(
            parameters=own | values.parameters,  # as in a workspace, a job parameter wins over a task's of the same name
            task_key=task.key,
            task_values=values.task_values,
            secrets=self.secrets,
        )
        spark = self.spark_for_task(task.key)
        task.html = self.run_dir / ".".join((*above, task.key, "html"))
        try:
            options = {"html": task.html, "redact": self.redact, "show_tables": self.show_tables}
            result = run_notebook(Path(notebook["notebook_path"]), spark=spark, dbutils=dbutils, **options)
        except KeyboardInterrupt as interrupt:
            end_work(spark, interrupt)
            raise
        finally:
            # A workspace ends a task's streams with the task; left alone they would go on into the next one.
            with contextlib.suppress(Exception):
                for query in spark.streams.active:
                    query.stop()
        task.cell = result.error
        if result.error:
            task.error, task.users_mistake = result.error.details, result.error.users_mistake

    def _run_called_job(self, call: Mapping[str, Any], task: TaskRun, values: DynamicValues, above: tuple[str, ...]) -> bool:
        given = {name: values.fill(text, task.key) for name, text in (call.get("job_parameters") or {}).items()}
        called = self.new_run(str(call["job_id"]), given)
        task.children = called.tasks
        self.run_tasks(called, (*above, task.key))
        task.state = called.state
        failed = [child for child in called.tasks if child.state in FAILED_STATES]
        if called.state != "SUCCESS":
            task.error = called.error or f"Job {called.key!r} failed: {', '.join(f'{child.key} {child.state}' for child in failed)}."
        return not any(child.users_mistake for child in failed)


_AROUND_THE_CAUSE = re.compile(
    r"[\s\S]*?Traceback \(most recent call last\):\n(?: .*\n)*"
    r"|(?:.*?(?:An error occurred while calling \S+\n: |terminated with exception: |\(TID \d+\) \(.*?\): ))+"
)
"""What a Python worker, Py4J, a stream and a stage put before the error that ended them; no room would be left for it in a line."""


def why(run: JobRun) -> str:
    """Why a run failed, as one short line: what its first task that failed says."""
    failed = next((task for task, _ in run.all_tasks() if task.error and not task.children), None)
    return run.error or (f"{failed.key}: {_cause(failed)}" if failed else run.state)


def _cause(task: TaskRun) -> str:
    """Why an attempt failed, as one short line: the first one of the error itself, as query plans and Java's stack follow it."""
    message = (task.cell.message if task.cell else task.error).strip()
    line = _AROUND_THE_CAUSE.sub("", message, count=1).strip().partition("\n")[0] or message.partition("\n")[0]
    line = re.sub(r"^(?:\w+\.)+(?=[\w$]+: )", "", line)  # the class alone, without its package
    return line if len(line) <= 200 else f"{line[:199]}…"


@contextlib.contextmanager
def _time_limit(seconds: Any, end_process: Callable[[], None]) -> Iterator[TimeLimitReached | None]:
    """Interrupt the block after `seconds` by raising the yielded exception in it, again and again until it is left; limits nest. A block
    that goes on all the same ends by `end_process`, which does not return. None or 0 means no limit.

    It needs the main thread and SIGALRM; without them the block runs without a limit.
    """
    seconds = float(seconds or 0)
    if not seconds or not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield None
        return
    outer, _ = signal.getitimer(signal.ITIMER_REAL)
    if 0 < outer <= seconds:  # the limit around this one comes first
        yield None
        return
    reached, start = TimeLimitReached(f"time limit of {seconds:g} s reached"), time.monotonic()

    def interrupt(*_: Any) -> None:
        raise reached

    last = threading.Timer(seconds + GRACE_SECONDS, end_process)
    last.daemon = True
    last.start()
    previous = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds, INTERRUPT_AGAIN_SECONDS)
    try:
        yield reached
    finally:
        last.cancel()  # first: an interrupt may still come in the lines that follow
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
        if outer:
            signal.setitimer(signal.ITIMER_REAL, max(outer - (time.monotonic() - start), 0.001), INTERRUPT_AGAIN_SECONDS)
