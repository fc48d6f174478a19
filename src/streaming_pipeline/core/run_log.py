"""`benchmark_logs` and `cluster_logs`: what each task and step took, and where it ran."""

import json
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from streaming_pipeline.core import tables
from streaming_pipeline.core.at_once import at_once
from streaming_pipeline.core.errors import PipelineError, UsageError, storage_fault
from streaming_pipeline.core.json_files import UNREADABLE, Damaged, read_json, set_aside
from streaming_pipeline.core.prices import load_prices
from streaming_pipeline.core.settings import Settings


@dataclass
class Step:
    """A timed step; the body of `with timed_step(…)` sets `records`."""

    run_time: datetime
    task: str
    elapsed_seconds: float = 0.0
    records: int | None = None


@dataclass(frozen=True)
class TaskResult:
    """What a task has done: `records` and `note` go into the logs and to later tasks, `value` is for the notebook to show."""

    records: int | None = None
    note: str = ""
    steps: Sequence[Step] = ()
    value: Any = None
    left: Mapping[str, str] = field(default_factory=dict)
    """What it leaves for later tasks besides."""


@contextmanager
def timed_step(run_dir: str, task: str) -> Iterator[Step]:
    """Time the body and leave the figure in the run's folder, for the stage to collect.

    A file for each, since the body may run in another process (`foreachBatch` on serverless) and volumes know no appending.
    """
    step = Step(datetime.now(UTC), task)
    began = time.perf_counter()
    yield step
    step.elapsed_seconds = time.perf_counter() - began
    folder = Path(run_dir, "steps")
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({**asdict(step), "run_time": step.run_time.isoformat()})
    (folder / f"{task}.{uuid.uuid4().hex}.json").write_text(text, encoding="utf-8")


def collect_steps(run_dir: str, tasks: tuple[str, ...]) -> tuple[Step, ...]:
    """The steps of these names that the run's folder holds, oldest first, also those of an attempt that failed; their files go.

    A file that cannot be read is set aside and printed: its figures are missing from what the stage says it has done.
    """
    steps = []
    for task in tasks:
        for file in sorted(Path(run_dir, "steps").glob(f"{task}.*.json")):
            try:
                steps.append(_step(read_json(file)))
                file.unlink()
            except FileNotFoundError:
                continue
            except Damaged as damage:
                print(f"{set_aside(file, str(damage))} What this step wrote is in the tables, and missing from the figures of this run.")
    return tuple(sorted(steps, key=lambda step: step.run_time))


def _step(held: Any) -> Step:
    """What `timed_step` wrote; raises `Damaged`."""
    try:
        step = Step(**{**held, "run_time": datetime.fromisoformat(held["run_time"]).astimezone(UTC)})
        is_step = isinstance(step.task, str) and isinstance(step.elapsed_seconds, int | float)
        if is_step and (step.records is None or type(step.records) is int):
            return step
    except UNREADABLE:
        pass
    raise Damaged("it is no timed step")


_held: dict[str, list[dict[str, Any]]] | None = None
"""Rows that wait for the end of their run, by the name of their table; None: each task writes its own."""


@contextmanager
def held_back() -> Iterator[Callable[[SparkSession, Settings], None]]:
    """Within the block the tasks of this process keep their rows of both logs, until the function that it gives writes them.

    Where a run takes seconds, its ten commits to these two tables would be a tenth of it, and each commit makes the next one slower: Delta
    lists a table's whole log. What a process that is killed has kept is lost.
    """
    global _held
    _held = {table.name: [] for table in (tables.BENCHMARK_LOGS, tables.CLUSTER_LOGS)}
    try:
        yield _write_held
    finally:
        _held = None


def _write_held(spark: SparkSession, settings: Settings) -> None:
    held = _held or {}

    def write(table: tables.Table) -> None:
        if rows := held.get(table.name):
            tables.append_rows(spark, settings, table, rows)
            rows.clear()

    at_once(lambda: write(tables.BENCHMARK_LOGS), lambda: write(tables.CLUSTER_LOGS))


def _write(spark: SparkSession, settings: Settings, table: tables.Table, rows: list[dict[str, Any]]) -> None:
    if _held is None:
        tables.append_rows(spark, settings, table, rows)
    else:
        _held[table.name] += rows


def step_rate(spark: SparkSession, settings: Settings, step: str) -> tuple[float, int] | None:
    """Records a second of this run's steps of that name, and how many records these were; None without any."""
    if _held is not None:
        mine = [row for row in _held["benchmark_logs"] if (row["run_id"], row["task"]) == (settings.run_id, step)]
        records, seconds = sum(row["records"] or 0 for row in mine), sum(row["elapsed_seconds"] for row in mine)
    elif not spark.catalog.tableExists(settings.table("benchmark_logs")):
        return None
    else:
        is_mine = (F.col("run_id") == settings.run_id) & (F.col("task") == step)
        steps = spark.table(settings.table("benchmark_logs")).where(is_mine)
        [(records, seconds)] = steps.agg(F.sum("records"), F.sum("elapsed_seconds")).collect()
    return (records / seconds, records) if records and seconds else None


def log_task(name: str, call: Callable[[], TaskResult], spark: SparkSession, settings: Settings) -> TaskResult:
    """Call a task, and log how long it and its steps took, and where; also when it fails.

    Raises `PipelineError` for a disk that is full or a folder that cannot be written.
    """
    started_at = datetime.now(UTC)
    began = time.perf_counter()
    try:
        result = call()
    except BaseException as error:
        try:
            _write_cluster_log(spark, settings, name, started_at, f"FAILED: {type(error).__name__}")
        except Exception as second:  # the first error is the one to be seen
            print(f"cluster_logs could not be written: {type(second).__name__}")
        if not isinstance(error, PipelineError) and (fault := storage_fault(error)):
            raise PipelineError(
                f"{name} could not write ({fault}): make room, or fix the folder, and run again. The tables hold nothing half-written."
            ) from error
        raise
    task = Step(started_at, name, time.perf_counter() - began, result.records)
    notes = ": ".join(filter(None, ("SUCCESS", result.note)))
    at_once(
        lambda: _write_benchmark_log(spark, settings, [*result.steps, task]),
        lambda: _write_cluster_log(spark, settings, name, started_at, notes),
    )
    return result


def _write_benchmark_log(spark: SparkSession, settings: Settings, steps: list[Step]) -> None:
    rows = [
        {
            **asdict(step),
            "records_per_second": step.records / step.elapsed_seconds if step.records is not None and step.elapsed_seconds else None,
            "run_id": settings.run_id,
        }
        for step in steps
    ]
    _write(spark, settings, tables.BENCHMARK_LOGS, rows)


def _write_cluster_log(spark: SparkSession, settings: Settings, name: str, started_at: datetime, notes: str) -> None:
    where, ended_at = _where(spark), datetime.now(UTC)
    cost = _cost(settings, where, (ended_at - started_at).total_seconds() / 3600)
    notes = "; ".join(filter(None, (notes, cost.pop("unknown", None))))
    row = {"task_name": name, **where, "start_time": started_at, "end_time": ended_at, "notes": notes, "run_id": settings.run_id, **cost}
    _write(spark, settings, tables.CLUSTER_LOGS, [row])


def _cost(settings: Settings, where: dict[str, Any], hours: float) -> dict[str, Any]:
    """`price_per_hour`, `cost` and `currency`, or why they are `unknown`: no task fails for want of a price."""
    try:
        prices = load_prices(settings.prices_path)
    except UsageError as error:
        return {"unknown": f"cost unknown: {error}"}
    node_type = where["node_type"] if where["node_type"] in prices.machines else where["cluster_name"]
    price = None if where["workers"] is None else prices.per_hour(node_type, where["workers"])
    if price is None:
        return {"unknown": f"cost unknown: {settings.prices_path} has no price of {where['workers']} workers of {where['node_type']}"}
    return {"price_per_hour": price, "cost": price * hours, "currency": prices.currency}


def _where(spark: SparkSession) -> dict[str, Any]:
    """The machine or cluster that runs this."""
    if "DATABRICKS_RUNTIME_VERSION" not in os.environ:
        return {"cluster_name": "this machine", "node_type": f"{os.cpu_count()} cores", "workers": 0}

    def tag(name: str) -> str | None:
        try:
            return spark.conf.get(f"spark.databricks.clusterUsageTags.{name}", None)
        except Exception:  # serverless has no such tags, and refuses to be asked
            return None

    node_type, workers = tag("clusterNodeType"), tag("clusterWorkers")
    if node_type is None:
        return {"cluster_name": "serverless", "node_type": "serverless", "workers": 0}
    return {"cluster_name": tag("clusterName"), "node_type": node_type, "workers": int(workers) if workers and workers.isdigit() else None}
