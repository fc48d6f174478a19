"""`alert_outbox`: an alert is written here first, once, and delivered later."""

from collections.abc import Collection
from dataclasses import MISSING, asdict, dataclass, fields, replace
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import to_arrow_schema

from streaming_pipeline.alerts.addresses import address_problem
from streaming_pipeline.alerts.findings import SEVERITIES
from streaming_pipeline.alerts.rules import CHANNELS, LONGEST
from streaming_pipeline.core import tables
from streaming_pipeline.core.foreign_text import NAME, harmless
from streaming_pipeline.core.settings import Settings


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
_NEEDED = [f.name for f in fields(Alert) if f.default is MISSING and f.name != "rule"]
_CHANGES = ("status", "channel", "attempts", "next_attempt_at", "sent_at", "recipients", "message_id", "reason")
"""What delivery may change of a row."""
_STATUSES = ("PENDING", "SENT", "DEAD", "MUTED")


def load(spark: SparkSession, settings: Settings, now: datetime) -> tuple[list[Alert], list[str]]:
    """All alerts that wait, and those of the last 30 days, which is as long as a cooldown can be, oldest first; and a sentence for each
    row that is no alert, which is left as it is."""
    is_recent = F.coalesce("sent_at", "created_at") > F.lit(now - LONGEST)
    rows = spark.table(settings.table("alert_outbox")).where((F.col("status") == "PENDING") | is_recent)
    alerts, damaged = [], []
    for row in rows.collect():
        alert = _alert(row.asDict())
        if problem := _problem(alert):
            damaged.append(
                f"A row of alert_outbox is skipped (alert_id {harmless(row['alert_id'], NAME)}): {problem}. Correct or delete it."
            )
        else:
            alerts.append(alert)
    return sorted(alerts, key=_order), damaged


def _problem(alert: Alert) -> str | None:
    """What is wrong with a row that somebody else wrote or changed, if anything is."""
    if missing := [name for name in _NEEDED if getattr(alert, name) is None]:
        return f"{missing[0]} is NULL"
    for name, known in (("severity", SEVERITIES), ("channel", CHANNELS), ("status", _STATUSES)):
        if getattr(alert, name) not in known:
            return f"{name} is '{harmless(getattr(alert, name), NAME)}', and must be one of {', '.join(known)}"
    is_address = lambda one: one is not None and address_problem(one) is None  # noqa: E731
    return next(
        (f"'{harmless(one, NAME)}' of its recipients is no e-mail address" for one in alert.recipients if not is_address(one)), None
    )


def _order(alert: Alert) -> tuple:
    """A run may derive the begin, the end and the begin again of one thing."""
    return alert.created_at, alert.found_at or alert.created_at, alert.is_recovery, alert.alert_id


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
    rows = [
        {name: _plain(getattr(alert, name)) for name in ("alert_id", *_CHANGES)}
        for alert in {alert.alert_id: alert for alert in alerts}.values()
    ]
    spark.createDataFrame(pa.Table.from_pylist(rows, to_arrow_schema(schema)), schema).createOrReplaceTempView("changed_alerts")
    spark.sql(
        f"MERGE INTO {settings.table('alert_outbox')} AS held USING changed_alerts AS changed ON held.alert_id = changed.alert_id "
        f"WHEN MATCHED THEN UPDATE SET {', '.join(f'{name} = changed.{name}' for name in _CHANGES)}"
    )
    spark.catalog.dropTempView("changed_alerts")


def resend(spark: SparkSession, settings: Settings) -> int:
    """Let the DEAD alerts be tried again by the next run; returns how many there are."""
    tables.create_missing(spark, settings, [tables.ALERT_OUTBOX])
    again = "status = 'PENDING', attempts = 0, next_attempt_at = current_timestamp()"
    return spark.sql(f"UPDATE {settings.table('alert_outbox')} SET {again} WHERE status = 'DEAD'").first()["num_affected_rows"]


def _alert(held: dict[str, Any]) -> Alert:
    """A row; of one that an older version wrote the newer columns are empty."""
    values = {name: value.astimezone(UTC) if isinstance(value, datetime) else value for name, value in held.items() if value is not None}
    values["recipients"] = tuple(values.get("recipients", ()))
    # Also of a row that lacks what each has, which is then refused.
    known = {"rule": values.get("anomaly_type", ""), **{name: value for name, value in values.items() if name in _NAMES}}
    return Alert(**{**dict.fromkeys(_NEEDED), **known})


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
