"""`alert_outbox`: an alert is written here first, once, and delivered later. And `alert_silences`."""

from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import to_arrow_schema

from streaming_pipeline import tables
from streaming_pipeline.settings import Settings

KEPT_IN_MIND = timedelta(days=30)
"""Alerts older than that are read only while they wait. No cooldown may be longer."""


@dataclass(frozen=True)
class Alert:
    """One row of `alert_outbox`; the table says what each column holds. Times are UTC."""

    alert_id: str
    fingerprint: str
    anomaly_type: str
    severity: str
    event_time: datetime
    message: str
    next_attempt_at: datetime
    created_at: datetime
    run_id: str
    rule: str
    channel: str = "email"
    recipients: tuple[str, ...] = ()
    status: str = "PENDING"
    attempts: int = 0
    sent_at: datetime | None = None
    table_name: str = ""
    subject: str = ""
    findings: int = 1
    metric: str = ""
    observed: float | None = None
    expected: float | None = None
    score: float | None = None
    threshold: float | None = None
    query: str = ""
    link: str = ""
    found_at: datetime | None = None
    is_recovery: bool = False
    is_ongoing: bool = False
    message_id: str | None = None
    reason: str | None = None

    def muted(self, reason: str) -> "Alert":
        """The same, not to be told."""
        return replace(self, status="MUTED", reason=reason)


_NAMES = {f.name for f in fields(Alert)}
_CHANGES = ("status", "attempts", "next_attempt_at", "sent_at", "recipients", "message_id", "reason")
"""What delivery may change of a row."""


def load(spark: SparkSession, settings: Settings, now: datetime) -> list[Alert]:
    """All alerts that wait, and those of the last 30 days, oldest first."""
    rows = spark.table(settings.table("alert_outbox")).where(
        (F.col("status") == "PENDING") | (F.col("created_at") > F.lit(now - KEPT_IN_MIND))
    )
    return sorted((_alert(row.asDict()) for row in rows.collect()), key=lambda alert: (alert.created_at, alert.alert_id))


def add(spark: SparkSession, settings: Settings, alerts: Collection[Alert]) -> None:
    """Append alerts, all in one commit."""
    if alerts:
        tables.append_rows(
            spark, settings, tables.ALERT_OUTBOX, [{**asdict(alert), "recipients": list(alert.recipients)} for alert in alerts]
        )


def update(spark: SparkSession, settings: Settings, alerts: Collection[Alert]) -> None:
    """Write what became of alerts that the table holds, all in one commit."""
    if not alerts:
        return
    schema = spark.table(settings.table("alert_outbox")).select("alert_id", *_CHANGES).schema
    rows = [{name: _plain(getattr(alert, name)) for name in ("alert_id", *_CHANGES)} for alert in alerts]
    spark.createDataFrame(pa.Table.from_pylist(rows, to_arrow_schema(schema)), schema).createOrReplaceTempView("changed_alerts")
    spark.sql(
        f"MERGE INTO {settings.table('alert_outbox')} AS held USING changed_alerts AS changed ON held.alert_id = changed.alert_id "
        f"WHEN MATCHED THEN UPDATE SET {', '.join(f'{name} = changed.{name}' for name in _CHANGES)}"
    )
    spark.catalog.dropTempView("changed_alerts")


def resend(spark: SparkSession, settings: Settings) -> int:
    """Let the DEAD alerts be tried again by the next run; returns how many there are."""
    tables.create_missing(spark, settings, [tables.ALERT_OUTBOX])
    now = datetime.now(UTC)
    rows = spark.table(settings.table("alert_outbox")).where("status = 'DEAD'").collect()
    again = [replace(_alert(row.asDict()), status="PENDING", attempts=0, next_attempt_at=now, message_id=None) for row in rows]
    update(spark, settings, again)
    return len(again)


def silences(spark: SparkSession, settings: Settings, now: datetime) -> dict[str, datetime]:
    """Rule → until when it is silent, of those that are."""
    rows = spark.table(settings.table("alert_silences")).groupBy("rule").agg(F.max_by("until", "created_at").alias("until"))
    return {row["rule"]: row["until"].astimezone(UTC) for row in rows.collect() if row["until"].astimezone(UTC) > now}


def _alert(held: dict[str, Any]) -> Alert:
    """A row; of one that an older version wrote the newer columns are empty."""
    values = {name: value.astimezone(UTC) if isinstance(value, datetime) else value for name, value in held.items() if value is not None}
    values["recipients"] = tuple(values.get("recipients", ()))
    return Alert(**{"rule": values.get("anomaly_type", ""), **{name: value for name, value in values.items() if name in _NAMES}})


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def newest_look(alerts: Iterable[Alert]) -> datetime | None:
    """Up to where the looks' findings have become alerts, as far as these tell."""
    return max((alert.found_at for alert in alerts if alert.found_at), default=None)
