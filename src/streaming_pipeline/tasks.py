"""Every task, once: its name, which is its notebook's, what it takes, and what it calls.

A notebook calls `run`. Its widgets, its settings, its rows in the logs, the values it leaves for later tasks, the table at its head and
docs/parameters.md all follow from here. (What a task calls is imported when it runs: bronze must not wait for MLflow.)
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

from pyspark.sql import SparkSession

from streaming_pipeline.core.errors import UsageError
from streaming_pipeline.core.run_log import TaskResult, log_task
from streaming_pipeline.core.settings import Settings, convert, default_of, parse_time, read_secrets


@dataclass(frozen=True)
class Parameter:
    """A parameter of a task, which a widget of its notebook holds as text. Its default says its type."""

    name: str
    default: Any
    meaning: str

    @property
    def text(self) -> str:
        """The default, as a widget holds it."""
        if isinstance(self.default, bool | Mapping):
            return json.dumps(self.default)
        if isinstance(self.default, tuple):
            return ", ".join(self.default)
        return f"{self.default:g}" if isinstance(self.default, float) else str(self.default)


SETTINGS = {"catalog": Parameter("catalog", "main", "Unity Catalog name; `spark_catalog` on a laptop")} | {
    one.name: Parameter(one.name, default_of(one), one.metadata["meaning"])
    for one in fields(Settings)
    if one.name not in ("catalog", "secrets")
}
"""The parameters that are settings, by name."""


@dataclass(frozen=True)
class Context:
    """What a task works with. `own` are the values of its own parameters, by name."""

    spark: SparkSession
    settings: Settings
    own: Mapping[str, Any]
    read_secrets: Callable[[tuple[str, ...]], dict[str, str]]


@dataclass(frozen=True)
class Task:
    """One task. `settings` are the names of those that it uses; `secrets` the prefixes of those that it cannot work without."""

    name: str
    call: Callable[[Context], TaskResult]
    settings: tuple[str, ...]
    own: tuple[Parameter, ...] = ()
    secrets: tuple[str, ...] = ()
    is_logged: bool = True
    must_run: bool = False
    """Whether it is to run though a parameter of another task is wrong: it must tell of that."""

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """All that its notebook takes, in the order of its widgets."""
        return (*(SETTINGS[name] for name in self.settings), *self.own)


def run(name: str, spark: SparkSession, dbutils: Any) -> Any:
    """Run the task of a notebook by the notebook's widgets, log it, and leave its records and note to later tasks.

    Returns what the notebook shows. The schema is in use then, if the task is logged. Raises `UsageError` for a parameter that cannot be
    used, be it another task's: what the job was given would else be found wrong by a later run, or by none.
    """
    task = TASKS[name]
    for parameter in task.parameters:
        dbutils.widgets.text(parameter.name, parameter.text)
    texts = dbutils.widgets.getAll()  # with those that the job has for its other tasks
    names = task.settings if task.must_run else [name for name in SETTINGS if name in texts]
    secrets = partial(read_secrets, dbutils, texts.get("secret_scope", ""))
    settings = Settings.from_parameters({name: texts[name] for name in names}, secrets(task.secrets) if task.secrets else {})
    own = {one.name: convert(one.name, one.default, texts[one.name].strip() or one.text) for one in task.own}
    call = partial(task.call, Context(spark, settings, own, secrets))
    result = log_task(name, call, spark, settings) if task.is_logged else call()
    left = {"records": result.records, "note": result.note, **result.left}
    for key, value in left.items():
        if value not in (None, ""):
            dbutils.jobs.taskValues.set(key, value)
    if task.is_logged:
        spark.sql(f"USE `{settings.catalog}`.`{settings.schema}`")
    return result.value


# ------------------------------------------------------------------------------------------------------- what each one calls


def _ingest(task: Context) -> TaskResult:
    from streaming_pipeline.bronze.ingest import stream_kafka_to_bronze

    done = stream_kafka_to_bronze(task.spark, task.settings)
    return TaskResult(done.records, done.note, value=done)


def _cleanse(task: Context) -> TaskResult:
    from streaming_pipeline.silver.cleanse import cleanse_bronze_to_silver

    done = cleanse_bronze_to_silver(task.spark, task.settings)
    return TaskResult(done.records, done.note, done.steps, done)


def _monitor(task: Context) -> TaskResult:
    from streaming_pipeline.monitoring.monitor import monitor_silver_events

    done = monitor_silver_events(task.spark, task.settings)
    return TaskResult(done.records, done.note, value=done)


def _score(task: Context) -> TaskResult:
    from streaming_pipeline.gold.score import score_silver_to_gold

    done = score_silver_to_gold(task.spark, task.settings)
    return TaskResult(done.records, done.note, done.steps, done)


def _send_alerts(task: Context) -> TaskResult:
    from streaming_pipeline.alerts.send import run_link, send_alerts

    done = send_alerts(
        task.spark,
        task.settings,
        states=json.loads(task.own["task_states"]),
        # Read by the task itself, which must tell of a failure though the scope cannot be read.
        read_secrets=partial(task.read_secrets, ("SMTP_", "ALERT_")),
        link=run_link(task.settings, task.own["workspace_url"], task.own["job_id"]),
    )
    return TaskResult(done.records, done.note, value=done)


def _check_champion(task: Context) -> TaskResult:
    from streaming_pipeline.gold.registry import champion_version

    version = champion_version(task.settings)
    said = f"version {version} is champion" if version else "no champion yet"
    return TaskResult(value=f"{task.settings.model_full_name}: {said}", left={"exists": str(bool(version)).lower()})


def _train(task: Context) -> TaskResult:
    from streaming_pipeline.gold.training import train

    done = train(task.spark, task.settings)
    return TaskResult(done.records, done.note, value=done)


def _set_champion(task: Context) -> TaskResult:
    from streaming_pipeline.gold.registry import set_champion, versions

    version = task.own["version"]
    note = set_champion(task.settings, version).note if version else ""
    return TaskResult(note=note, value=versions(task.settings))


def _rescore(task: Context) -> TaskResult:
    from streaming_pipeline.gold.rescore import Period, rescore_gold

    done = rescore_gold(task.spark, task.settings, choice=Period.from_texts(**task.own))
    return TaskResult(done.records, done.note, value=done)


def _backfill(task: Context) -> TaskResult:
    from streaming_pipeline.bronze.backfill import backfill_bronze

    since = parse_time("from_time", task.own["from_time"])
    if since is None:
        raise UsageError("Parameter 'from_time' is empty: give the time from which the topic is read again, such as 2026-03-01T00:00:00Z.")
    done = backfill_bronze(task.spark, task.settings, since=since, dry_run=task.own["dry_run"])
    return TaskResult(done.records, done.note, value=done)


def _replay(task: Context) -> TaskResult:
    from streaming_pipeline.silver.replay import Selection, replay_quarantine

    choice = Selection.from_texts(task.own["reason"], task.own["from_time"], task.own["until_time"])
    done = replay_quarantine(task.spark, task.settings, choice=choice, dry_run=task.own["dry_run"])
    return TaskResult(done.records, done.note, done.steps, done)


def _set_baseline(task: Context) -> TaskResult:
    from streaming_pipeline.monitoring.baseline import BaselineRequest, set_baseline

    done = set_baseline(task.spark, task.settings, choice=BaselineRequest.from_texts(**task.own))
    return TaskResult(done.records, done.note, value=done)


def _silence(task: Context) -> TaskResult:
    from streaming_pipeline.alerts.silence import parse_for, silence

    done = silence(task.spark, task.settings, rule=task.own["rule"], duration=parse_for(task.own["duration"]))
    return TaskResult(note=done.note, value=done)


def _resend(task: Context) -> TaskResult:
    from streaming_pipeline.alerts.outbox import resend

    alerts = resend(task.spark, task.settings)
    return TaskResult(alerts, "the next run of the main job tries them again" if alerts else "no alert is DEAD", value=alerts)


def _maintain(task: Context) -> TaskResult:
    from streaming_pipeline.maintenance import maintain_tables

    return TaskResult(value=maintain_tables(task.spark, task.settings))


def _produce(task: Context) -> TaskResult:
    from streaming_pipeline.events import synthetic
    from streaming_pipeline.events.producer import produce

    return TaskResult(value=produce(task.settings.kafka, synthetic.generate(task.own["count"], seed=task.own["seed"])))


# ------------------------------------------------------------------------------------------------------------------ the tasks

_EVERY = ("catalog", "schema", "config_dir", "runs_dir", "run_id")
_KAFKA = ("secret_scope", "kafka_topic", "kafka_options")
_DRY_RUN = Parameter("dry_run", False, "`true`: say what would happen, and write nothing")

TASKS = {
    task.name: task
    for task in (
        Task("01_stream_kafka_to_bronze", _ingest, (*_EVERY, "checkpoint_dir", *_KAFKA, "max_offsets_per_trigger"), secrets=("KAFKA_",)),
        Task("02_bronze_to_silver_cleanse", _cleanse, (*_EVERY, "checkpoint_dir", "dedupe_window_days")),
        Task(
            "03_monitor_silver_events",
            _monitor,
            (
                *_EVERY,
                *_KAFKA,
                "late_after_seconds",
                "freshness_limit_seconds",
                "window_minutes",
                "baseline_windows",
                "rejected_limit_pct",
                "repeated_limit_pct",
            ),
            secrets=("KAFKA_",),
        ),
        Task("check_champion", _check_champion, ("catalog", "schema", "model_name"), is_logged=False),
        Task("04_score_silver_to_gold", _score, (*_EVERY, "checkpoint_dir", "model_name")),
        Task(
            "05_send_alerts",
            _send_alerts,
            (*_EVERY, "secret_scope"),
            own=(
                Parameter("task_states", "{}", "how the tasks before this one ended, as JSON"),
                Parameter("workspace_url", "", "leads to this run, with `job_id`"),
                Parameter("job_id", "", "leads to this run, with `workspace_url`"),
            ),
            must_run=True,
        ),
        Task("train_anomaly_detector", _train, (*_EVERY, "model_name", "experiment", "features", "contamination")),
        Task("maintain_tables", _maintain, _EVERY),
        Task(
            "backfill_bronze",
            _backfill,
            (*_EVERY, "checkpoint_dir", *_KAFKA, "max_offsets_per_trigger"),
            own=(Parameter("from_time", "", "the first record's time, such as 2026-03-01T00:00:00Z"), _DRY_RUN),
            secrets=("KAFKA_",),
        ),
        Task(
            "replay_quarantine",
            _replay,
            (*_EVERY, "dedupe_window_days"),
            own=(
                Parameter("reason", "", "a reason such as `wrong_type:value`, or `wrong_type` for every field; empty: any"),
                Parameter("from_time", "", "rejected at or after this time, such as 2026-03-01T00:00:00Z; empty: any"),
                Parameter("until_time", "", "rejected before this time; empty: any"),
                _DRY_RUN,
            ),
        ),
        Task(
            "rescore_gold",
            _rescore,
            (*_EVERY, "model_name"),
            own=(
                Parameter("from_time", "", "begin of the period, in event time, such as 2026-03-01T00:00:00Z"),
                Parameter("until_time", "", "its end"),
                Parameter("version", "", "version of the model; empty: the champion"),
            ),
        ),
        Task(
            "set_champion",
            _set_champion,
            (*_EVERY, "model_name"),
            own=(Parameter("version", "", "a number; `previous`: the previous champion; empty: change nothing, list the versions"),),
        ),
        Task(
            "set_baseline",
            _set_baseline,
            (*_EVERY, "window_minutes", "baseline_windows"),
            own=(
                Parameter("name", "chosen", "what it is called"),
                Parameter("from_time", "", "begin of the period, such as 2026-03-01T00:00:00Z; empty: the newest `baseline_windows`"),
                Parameter("until_time", "", "its end"),
            ),
        ),
        Task(
            "silence_alerts",
            _silence,
            _EVERY,
            own=(
                Parameter("rule", "", "the rule's name in `alert_rules.yml`"),
                Parameter("duration", "4h", "such as 30m, 4h or 7d; 0m ends a silence"),
            ),
        ),
        Task("resend_alerts", _resend, _EVERY),
        Task(
            "produce_synthetic_events",
            _produce,
            ("catalog", "secret_scope", "kafka_topic"),
            own=(
                Parameter("count", 10_000, "how many events to produce"),
                Parameter("seed", 0, "the same seed makes the same events"),
            ),
            secrets=("KAFKA_",),
            is_logged=False,
        ),
    )
}
"""Every task by its name."""
