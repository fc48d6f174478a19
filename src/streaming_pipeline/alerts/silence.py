"""Quiet an alert rule for a while."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from streaming_pipeline.alerts.rules import load_rules, parse_duration
from streaming_pipeline.core import tables
from streaming_pipeline.core.errors import UsageError
from streaming_pipeline.core.settings import Settings


@dataclass(frozen=True)
class Silence:
    """That a rule is silent until a time."""

    rule: str
    until: datetime
    records: int = 1

    @property
    def note(self) -> str:
        """The same in a sentence."""
        return f"rule {self.rule} is silent until {self.until:%Y-%m-%d %H:%M} UTC"


def parse_for(text: str) -> timedelta:
    """How long, such as 4h; 0m ends a silence. Raises `UsageError`."""
    try:
        return parse_duration(text)
    except ValueError as error:
        raise UsageError(f"Parameter 'duration': {error}.") from None


def silences(spark: SparkSession, settings: Settings, now: datetime) -> dict[str, datetime]:
    """Rule → until when it is silent, of those that are."""
    orders = spark.table(settings.table("alert_silences")).where("rule IS NOT NULL AND until IS NOT NULL")
    rows = orders.groupBy("rule").agg(F.max_by("until", "created_at").alias("until"))
    return {row["rule"]: row["until"].astimezone(UTC) for row in rows.collect() if row["until"].astimezone(UTC) > now}


def silence(spark: SparkSession, settings: Settings, rule: str, duration: timedelta) -> Silence:
    """Let a rule be silent from now on; what it would have told is MUTED in `alert_outbox`. The newest order for a rule counts.

    Raises `UsageError` for a rule that the file does not have.
    """
    load_rules(settings.alert_rules_path).check_name(rule)
    now = datetime.now(UTC)
    row = {"rule": rule, "until": now + duration, "created_at": now, "run_id": settings.run_id}
    tables.append_rows(spark, settings, tables.ALERT_SILENCES, [row])
    return Silence(rule, now + duration)
