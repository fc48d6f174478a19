"""What the looks found, and how runs ended, as what an alert can be about. Reads tables; decides nothing."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from streaming_pipeline.settings import Settings
from streaming_pipeline.tables import sql_text

SEVERITIES = ("info", "warning", "critical")
_FAILED_STATES = ("failed", "timedout", "canceled", "evicted")


@dataclass(frozen=True)
class Kind:
    """A kind of finding: how a mail calls it, whether its end is announced, and what to look at first."""

    title: str
    recovers: bool
    advice: str


KINDS = {
    "job_failed": Kind("job failed", True, "Open the run: the failing cell is marked. What was written stays; the next run goes on."),
    "records_unaccounted": Kind("records unaccounted for", True, "docs/runbook.md: find them before you delete anything."),
    "records_lost": Kind("records lost", True, "Kafka holds, or held, records that bronze does not: docs/runbook.md."),
    "stale": Kind("data is stale", True, "Does the producer send? `consume --newest` shows what is on the topic."),
    "missing_pattern": Kind("silence", True, "Does the source of this slice send? The gap is measured against its own rhythm."),
    "spike": Kind("spike", False, "Re-deliveries, a campaign or a loop at the producer: look at the events of these minutes."),
    "outlier": Kind("strange events", False, "Look at the events themselves, and at how many detectors say so."),
    "schema_change": Kind("schema changed", False, "Ask the producer; adapt config/event_contract.yml; then `quarantine replay`."),
    "drift": Kind("drift", True, "If the change is meant to stay: `baseline set`. Else ask what changed at the source."),
    "concept_drift": Kind("suspected concept drift", True, "Scores look other than at training: look at drift first, then retrain."),
    "degradation": Kind("pipeline degraded", True, "Compare the newest rows of monitor_logs with those before."),
}
"""Every kind of finding that a rule may name."""


@dataclass(frozen=True)
class Look:
    """A row of `monitor_logs`: one look, or one loss that was accepted (no number)."""

    run_time: datetime
    number: int | None
    records: int
    latest_event_time: datetime | None
    judged: frozenset[tuple[str, str]] = frozenset()
    """(kind, subject) of what was judged in this look; of those that are not found again the end is announced."""


@dataclass(frozen=True)
class Finding:
    """All findings of one kind about one subject in one look, with the numbers of the worst."""

    kind: str
    table_name: str
    subject: str
    severity: str
    text: str
    began: datetime | None
    ended: datetime | None
    """Behind it; None: it has none, since it is a state of now."""
    count: int = 1
    metric: str = ""
    observed: float | None = None
    expected: float | None = None
    threshold: float | None = None
    query: str = ""


def failed_tasks(states: Mapping[str, str]) -> tuple[str, ...]:
    """The tasks that ended badly; a task that could not start because of another, or was not needed, is not one of them."""
    return tuple(sorted(task for task, state in states.items() if str(state).lower() in _FAILED_STATES))


def job_failure(failed: Sequence[str], settings: Settings, now: datetime) -> Finding:
    """The finding that a run failed."""
    text = f"Run {settings.run_id}: {', '.join(failed)} failed. The run's page holds the failing cell and its error."
    query = f"SELECT * FROM {_plain(settings, 'cluster_logs')} WHERE run_id = {sql_text(settings.run_id)} ORDER BY start_time"
    return Finding("job_failed", "", ", ".join(failed), "critical", text, now, None, len(failed), query=query)


def read_looks(spark: SparkSession, settings: Settings, after: datetime) -> list[tuple[Look, list[Finding]]]:
    """The looks after a time, oldest first, each with its findings; empty if nothing was ever monitored."""
    if not spark.catalog.tableExists(settings.table("monitor_logs")):
        return []
    rows = spark.table(settings.table("monitor_logs")).where(F.col("run_time") > F.lit(after)).orderBy("run_time").collect()
    # Of a look that saw nothing there is nothing to read.
    numbers = [row["look"] for row in rows if row["look"] and (row["records"] or row["findings"])]
    drift = _read(spark, settings, "drift_metrics", _DRIFT, numbers)
    anomalies = _read(spark, settings, "anomaly_logs", _ANOMALIES, numbers)
    out = []
    for row in rows:
        of_look = [one for one in drift if one["look"] == row["look"]]
        found = [*_of_log(row, settings), *(_of_drift(one, settings) for one in of_look if one["findings"])]
        found += [_of_anomalies(one, settings) for one in anomalies if one["look"] == row["look"]]
        out.append((_look(row, of_look), found))
    return out


_SEVERITY = "max(array_position(array('info', 'warning', 'critical'), severity))"
_DRIFT = f"""
SELECT look, table_name, column_name AS subject, metric LIKE 'schema%' AS is_schema, count_if(is_drift) AS findings,
  min(window_start) FILTER (WHERE is_drift) AS began, max(window_end) FILTER (WHERE is_drift) AS ended,
  {_SEVERITY} FILTER (WHERE is_drift) AS severity,
  max_by(struct(metric, value, threshold, slice), if(is_drift, coalesce(abs(value) / nullif(threshold, 0), value), -1)) AS worst
FROM {{table}}
WHERE look IN ({{looks}}) AND comparison <> 'previous' AND is_drift IS NOT NULL
GROUP BY ALL
ORDER BY look, subject
"""
_ANOMALIES = f"""
SELECT look, table_name, anomaly_type, series AS subject, count(*) AS findings, count(DISTINCT event_id) AS events,
  min(coalesce(window_start, event_time)) AS began, max(coalesce(window_end, event_time)) AS ended, {_SEVERITY} AS severity,
  max_by(struct(detector, observed, expected, score, threshold, slice), abs(score) / threshold) AS worst
FROM {{table}}
WHERE look IN ({{looks}})
GROUP BY ALL
ORDER BY look, anomaly_type, subject
"""


def _read(spark: SparkSession, settings: Settings, table: str, text: str, looks: Collection[int]) -> list[Any]:
    if not looks or not spark.catalog.tableExists(settings.table(table)):
        return []
    return spark.sql(text.format(table=settings.table(table), looks=", ".join(map(str, looks)))).collect()


def _look(row: Any, drift: Sequence[Any]) -> Look:
    judged = {(_drift_kind(one), one["subject"]) for one in drift}
    if row["look"]:
        judged |= {("records_unaccounted", ""), ("stale", "")}
        judged |= {("records_lost", "")} if row["lost_records"] is not None else set()
        # Nothing is said about arrivals while none come.
        judged |= {("missing_pattern", "*"), ("degradation", "*")} if row["records"] else set()
    return Look(_aware(row["run_time"]), row["look"], row["records"] or 0, _aware(row["latest_event_time"]), frozenset(judged))


def _of_log(row: Any, settings: Settings) -> list[Finding]:
    """What a row of `monitor_logs` itself says."""
    at = _aware(row["run_time"])
    query = f"SELECT * FROM {_plain(settings, 'monitor_logs')} WHERE run_time = TIMESTAMP{sql_text(at.isoformat())}"
    unaccounted, lost = row["unaccounted_records"], row["lost_records"]
    found = []
    if unaccounted:
        text = f"{unaccounted:,} records of bronze are not exactly one of event, duplicate, open quarantine."
        found.append(
            Finding("records_unaccounted", row["table_name"], "", "critical", text, at, None, 1, "", unaccounted, 0, 0, query),
        )
    if lost:
        text = f"{lost:,} records that Kafka had are not in bronze. {row['status_reason'] or ''}".strip()
        found.append(Finding("records_lost", row["table_name"], "", "critical", text, at, None, 1, "", lost, 0, 0, query))
    if row["status"] == "Unhealthy" and not unaccounted and not lost:
        text = f"{(row['status_reason'] or 'the newest event is old').capitalize()}."
        fresh, limit = row["freshness_seconds"], row["expected_freshness_seconds"]
        began = _aware(row["latest_event_time"]) or at
        found.append(Finding("stale", row["table_name"], "", "critical", text, began, None, 1, "seconds", fresh, limit, None, query))
    return found


def _drift_kind(row: Any) -> str:
    if row["is_schema"]:
        return "schema_change"
    return "concept_drift" if row["table_name"] == "gold_anomaly_predictions" else "drift"


def _of_drift(row: Any, settings: Settings) -> Finding:
    kind, worst, name = _drift_kind(row), row["worst"], shown(row["subject"])
    span = _span(row["began"], row["ended"])
    if kind == "schema_change":
        verb = {"schema_added": "is new, the contract lacks it", "schema_removed": "is missing", "schema_retyped": "has another type"}
        text = f"Field {name} {verb.get(worst['metric'], worst['metric'])}: {worst['value']:.3g} % of the records, {span}."
    else:
        where = "" if worst["slice"] == "*" else f" of {shown(worst['slice'])}"
        text = (
            f"{name}{where}: {worst['metric']} is {worst['value']:.3g}, drift from {worst['threshold']:g} on; "
            f"{row['findings']:,} findings, {span}."
        )
    same = "LIKE" if row["is_schema"] else "NOT LIKE"
    query = (
        f"SELECT * FROM {_plain(settings, 'drift_metrics')} WHERE look = {row['look']} AND column_name = {sql_text(row['subject'])} "
        f"AND is_drift AND comparison <> 'previous' AND metric {same} 'schema%' ORDER BY window_start"
    )
    return Finding(
        kind, row["table_name"], row["subject"], SEVERITIES[(row["severity"] or 2) - 1], text, _aware(row["began"]), _aware(row["ended"]),
        row["findings"], worst["metric"], worst["value"], None, worst["threshold"], query,
    )  # fmt: skip


def _of_anomalies(row: Any, settings: Settings) -> Finding:
    kind, worst, name = row["anomaly_type"], row["worst"], shown(row["subject"])
    where = "" if worst["slice"] == "*" else f" of {shown(worst['slice'])}"
    numbers = f"{_number(worst['observed'])} where {_number(worst['expected'])} is usual"
    score = f"{worst['detector']} {worst['score']:.3g}, limit {worst['threshold']:g}"
    span = _span(row["began"], row["ended"])
    text = {
        "outlier": f"{row['events']:,} strange events by {name}; the strangest{where} {numbers} ({score}), {span}.",
        "spike": f"{name}{where}: {numbers} ({score}), {span}.",
        "missing_pattern": f"{name}{where}: {numbers} in all ({score}), {span}.",
        "degradation": f"{name}: {numbers} ({score}), {span}.",
    }[kind]
    query = (
        f"SELECT * FROM {_plain(settings, 'anomaly_logs')} WHERE look = {row['look']} AND anomaly_type = '{kind}' "
        f"AND series = {sql_text(row['subject'])} ORDER BY abs(score) / threshold DESC"
    )
    return Finding(
        kind, row["table_name"], row["subject"], SEVERITIES[(row["severity"] or 2) - 1], text, _aware(row["began"]), _aware(row["ended"]),
        row["findings"], worst["detector"], worst["observed"], worst["expected"], worst["threshold"], query,
    )  # fmt: skip


def shown(text: str) -> str:
    """A name that came from payloads as a message may hold it: on one line, and no longer than a line."""
    clean = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    return clean if len(clean) <= 60 else f"{clean[:59]}…"


def _number(value: float | None) -> str:
    return "nothing" if value is None else f"{value:,.0f}" if abs(value) >= 1000 or value == round(value) else f"{value:,.3g}"


def _span(began: datetime | None, ended: datetime | None) -> str:
    begin, end = (at.astimezone(UTC) if at else None for at in (began, ended))
    if begin is None:
        return "now"
    if end is None or end <= begin:
        return f"{begin:%Y-%m-%d %H:%M} UTC"
    same_day = begin.date() == end.date()
    return f"{begin:%Y-%m-%d %H:%M} to {end:{'%H:%M' if same_day else '%Y-%m-%d %H:%M'}} UTC"


def _aware(at: datetime | None) -> datetime | None:
    """Spark hands timestamps out in the zone of this machine, without saying so."""
    return at.astimezone(UTC) if at else None


def _plain(settings: Settings, table: str) -> str:
    """A table's name as people type it: with backticks only where it needs them."""
    parts = (settings.catalog, settings.schema, table)
    return ".".join(part if part.replace("_", "").isalnum() else f"`{part}`" for part in parts)
