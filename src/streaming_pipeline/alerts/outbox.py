"""`alert_outbox`: an alert is written here first, once, and delivered later."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from streaming_pipeline import tables
from streaming_pipeline.errors import PipelineError
from streaming_pipeline.settings import Settings

_FAILED_STATES = ("failed", "timedout", "canceled", "evicted")


@dataclass(frozen=True)
class Alert:
    """One row of `alert_outbox` that nobody has been told of yet."""

    alert_id: str
    fingerprint: str
    anomaly_type: str
    severity: str
    event_time: datetime
    message: str
    run_id: str
    created_at: datetime
    next_attempt_at: datetime
    status: str = "PENDING"
    attempts: int = 0


@dataclass(frozen=True)
class Sending:
    """What task 05 did: the alerts it added, and the tasks of the run that failed."""

    records: int
    alerts: tuple[Alert, ...]
    failed_tasks: tuple[str, ...]


def failed_tasks(states: Mapping[str, str]) -> tuple[str, ...]:
    """The tasks that ended badly; a task that could not start because of another, or was not needed, is not one of them."""
    return tuple(sorted(task for task, state in states.items() if state.lower() in _FAILED_STATES))


def failure_alert(failed: tuple[str, ...], run_id: str, now: datetime) -> Alert:
    """The alert that a run failed. Its id follows from the run and the tasks: a second attempt derives the same one."""
    fingerprint = f"job_failed/{','.join(failed)}"
    return Alert(
        alert_id=hashlib.sha256(f"{fingerprint}/{run_id}".encode()).hexdigest()[:32],
        fingerprint=fingerprint,
        anomaly_type="job_failed",
        severity="critical",
        event_time=now,
        message=f"Run {run_id}: {', '.join(failed)} failed. The run's page holds the failing cell and its error.",
        run_id=run_id,
        created_at=now,
        next_attempt_at=now,
    )


def add(spark: SparkSession, settings: Settings, alerts: list[Alert]) -> list[Alert]:
    """Write the alerts that the outbox does not hold yet; returns these."""
    tables.create_missing(spark, settings, [tables.ALERT_OUTBOX])
    if not alerts:
        return []
    ids = [alert.alert_id for alert in alerts]
    held = {row["alert_id"] for row in spark.table(settings.table("alert_outbox")).where(F.col("alert_id").isin(ids)).collect()}
    new = [alert for alert in alerts if alert.alert_id not in held]
    if new:
        tables.append_rows(spark, settings, tables.ALERT_OUTBOX, [asdict(alert) for alert in new])
    return new


def record_failures(spark: SparkSession, settings: Settings, states: Mapping[str, str]) -> Sending:
    """Write an alert if a task of this run failed. `states` has each task's result state, as the job hands it over."""
    failed = failed_tasks(states)
    derived = [failure_alert(failed, settings.run_id, datetime.now(UTC))] if failed else []
    new = add(spark, settings, derived)
    for alert in new:
        print(f"{alert.severity.upper()} {alert.anomaly_type}: {alert.message}")
    return Sending(len(new), tuple(new), failed)


def fail_if_run_failed(sending: Sending) -> None:
    """Raise `PipelineError` if a task of the run failed: this task comes last, and the run takes its state from it."""
    if sending.failed_tasks:
        raise PipelineError(f"The run failed, since {', '.join(sending.failed_tasks)} failed.")
