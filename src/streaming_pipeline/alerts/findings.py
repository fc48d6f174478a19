"""What the looks found, and how runs ended, as what an alert can be about. Reads tables; decides nothing."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from math import isnan
from typing import Any

import numpy as np
import pandas as pd
from pyspark.sql import Column, Row, SparkSession
from pyspark.sql import functions as F

from streaming_pipeline.core.foreign_text import NAME, harmless
from streaming_pipeline.core.settings import Settings
from streaming_pipeline.core.tables import sql_text
from streaming_pipeline.core.wording import duration, plural
from streaming_pipeline.monitoring.degradation import MIN_RECORDS
from streaming_pipeline.monitoring.drift import THRESHOLDS, kind_of
from streaming_pipeline.monitoring.incidents import together
from streaming_pipeline.monitoring.intake import MIN_RECORDS as LEAST_TAKEN
from streaming_pipeline.monitoring.windows import utc

SEVERITIES = ("info", "warning", "critical")
_FAILED_STATES = ("failed", "timedout", "canceled", "evicted")


@dataclass(frozen=True)
class Kind:
    """A kind of finding: how a mail calls it, whether its end is announced, and what to look at first."""

    title: str
    recovers: bool
    advice: str
    advice_when_over: str = ""
    """Of what was over when it was found, where that is another."""


KINDS = {
    "job_failed": Kind("job failed", True, "Open the run: the failing cell is marked. What was written stays; the next run goes on."),
    "records_unaccounted": Kind("records unaccounted for", True, "Find them before you delete anything: docs/runbook.md says how."),
    "records_lost": Kind("records lost", True, "Kafka holds, or held, records that bronze lacks: docs/runbook.md says what to do."),
    "records_rejected": Kind(
        "records rejected",
        True,
        "See streaming-pipeline quarantine list. Is this the right contract, or has the producer changed? Fix that, then run "
        "streaming-pipeline quarantine replay.",
    ),
    "records_repeated": Kind("records repeated", True, "A producer sends the same records again. Silver has each event once."),
    "records_conflicting": Kind(
        "same id, other content",
        False,
        "Silver keeps the event that came first. Does the producer use an id twice, or correct events? See docs/runbook.md.",
    ),
    "stale": Kind("data is stale", True, "Does the producer still send? See streaming-pipeline consume --newest."),
    "missing_pattern": Kind(
        "missing pattern",
        True,
        "Does the source still send? See streaming-pipeline consume --newest.",
        "Events arrive again. Ask the source what happened, and whether it still has to send events of that time.",
    ),
    "spike": Kind("spike", False, "Is it re-deliveries, a campaign or a loop at the producer? Look at the events of these minutes."),
    "outlier": Kind("strange events", False, "Look at the events themselves, and at how many detectors flag them."),
    "schema_change": Kind(
        "schema changed",
        False,
        "Ask the producer. A new field loses no event: add it to config/event_contract.yml to have it in silver. If records were rejected "
        "for a missing or changed field, fix the producer or the contract, then run streaming-pipeline quarantine replay.",
    ),
    "drift": Kind("drift", True, "Ask what changed at the source. If the change is meant to stay, run streaming-pipeline baseline set."),
    "concept_drift": Kind("suspected concept drift", True, "The scores differ from those at training: look at drift first, then retrain."),
    "degradation": Kind("pipeline degraded", True, "Compare the newest rows of monitor_logs with earlier ones."),
}
"""Every kind of finding that a rule may name."""
_STILL = timedelta(minutes=2)
"""A silence that ended longer before the newest event is over; one that goes on is judged to the minute."""
CRITICAL_PCT = 50
"""From this share of rejected records on it is critical."""
_DRIFT_KINDS = {"drift", "concept_drift", "schema_change"}


def advice(kind: str, is_over: bool) -> str:
    """What to look at first; nothing of a kind that is unknown here."""
    if kind not in KINDS:
        return ""
    return (is_over and KINDS[kind].advice_when_over) or KINDS[kind].advice


@dataclass(frozen=True)
class Look:
    """A row of `monitor_logs`: one look, or one loss that was accepted (no number)."""

    run_time: datetime
    number: int | None
    judged: frozenset[tuple[str, str]] = frozenset()
    """(kind, subject) of what was judged in this look; of those that are not found again the end is announced."""


@dataclass(frozen=True)
class Finding:
    """All findings of one kind about one subject in one look, with time and numbers of the one that is told: what goes on, or the worst."""

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
    """The metric of drift, or the detector."""
    observed: float | None = None
    expected: float | None = None
    score: float | None = None
    threshold: float | None = None
    """Of the score or, without one, of what was observed."""
    query: str = ""
    is_ongoing: bool = True
    """Whether it was still so in the newest window that was judged, or at the newest event."""


def failed_tasks(states: Mapping[str, str]) -> tuple[str, ...]:
    """The tasks that ended badly; a task that could not start because of another, or was not needed, is not one of them."""
    return tuple(sorted(task for task, state in states.items() if str(state).lower() in _FAILED_STATES))


def job_failure(failed: Sequence[str], settings: Settings, now: datetime) -> Finding:
    """The finding that a run failed."""
    text = f"Run {settings.run_id}: {', '.join(failed)} failed. The run's page shows the failing cell and its error."
    query = f"SELECT * FROM {_plain(settings, 'cluster_logs')} WHERE run_id = {sql_text(settings.run_id)} ORDER BY start_time"
    return Finding("job_failed", "", ", ".join(failed), "critical", text, now, None, len(failed), query=query)


def read_looks(
    spark: SparkSession, settings: Settings, after: datetime, kinds: Collection[str], is_drift_open: bool
) -> list[tuple[Look, list[Finding]]]:
    """The looks after a time, oldest first, each with its findings of these kinds; empty if nothing was ever monitored.

    `is_drift_open`: somebody was told of a drift and not of its end, so that it matters what was judged and is none.
    """
    logs = spark.table(settings.table("monitor_logs")).where(F.col("run_time") > F.lit(after)).orderBy("run_time").collect()
    # What looks found stands in their row: a table of theirs is read only for what is wanted.
    is_judged = (F.col("comparison") != "previous") & F.col("is_drift").isNotNull()
    drift = _rows(spark, settings, "drift_metrics", _looks_with(logs, kinds & _DRIFT_KINDS, is_drift_open), is_judged)
    # There may be very many outliers, and usually nobody is told of them.
    odd_kinds = kinds - _DRIFT_KINDS
    odd = _rows(spark, settings, "anomaly_logs", _looks_with(logs, odd_kinds), F.col("anomaly_type").isin(sorted(odd_kinds)))
    looks = []
    for row in logs:
        of_look = [part[part["look"] == row["look"]] for part in (drift, odd)]
        newest = utc(row["latest_event_time"])
        found = [*_of_log(row, settings), *_of_drift(of_look[0], settings), *_of_anomalies(of_look[1], newest, settings)]
        looks.append((_look(row, of_look[0]), [finding for finding in found if finding.kind in kinds]))
    return looks


def _looks_with(logs: Iterable[Row], kinds: Collection[str], is_any: bool = False) -> list[int]:
    """The numbers of the looks that found one of these kinds; with `is_any` of all that saw something."""
    return [row["look"] for row in logs if row["look"] and ((is_any and row["records"]) or set(row["findings"] or ()) & set(kinds))]


def _rows(spark: SparkSession, settings: Settings, name: str, looks: Collection[int], condition: Column) -> pd.DataFrame:
    """The rows of some looks, few enough to be sorted here: Spark would take seconds to compile what is done in milliseconds."""
    if not looks or not spark.catalog.tableExists(settings.table(name)):
        return pd.DataFrame({"look": []})
    rows = spark.table(settings.table(name)).where(F.col("look").isin(sorted(looks)) & condition).drop("run_id")
    return rows.toArrow().to_pandas()  # toPandas would give times without their zone


def _look(row: Row, drift: pd.DataFrame) -> Look:
    judged = {(kind, column) for (_, kind, column), _ in _by(drift, _DRIFT_KEY)}
    if row["look"]:
        judged.add(("records_unaccounted", ""))
        # Of two things that are wrong a row of an earlier version names the first.
        is_named_first = row["problems"] is None and (row["unaccounted_records"] or row["lost_records"])
        judged |= {("stale", "")} if not is_named_first else set()
        judged |= {("records_rejected", ""), ("records_repeated", "")} if _taken(row) >= LEAST_TAKEN else set()
        judged |= {("records_lost", "")} if row["lost_records"] is not None else set()
        # Nothing is said about arrivals while none come, nor about shares of a few records.
        judged |= {("missing_pattern", "*")} if row["records"] else set()
        judged |= {("degradation", name) for name, records in (row["figures_of"] or {}).items() if records >= MIN_RECORDS}
    return Look(utc(row["run_time"]), row["look"], frozenset(judged))


def _of_log(row: Row, settings: Settings) -> Iterator[Finding]:
    """What a row of `monitor_logs` itself says."""
    at = utc(row["run_time"])
    query = f"SELECT * FROM {_plain(settings, 'monitor_logs')} WHERE run_time = TIMESTAMP{sql_text(at.isoformat())}"
    unaccounted, lost, problems = row["unaccounted_records"], row["lost_records"], row["problems"]

    def found(
        kind: str, text: str, began: datetime, observed: float | None, expected: float | None = None, severity: str = "critical"
    ) -> Finding:
        return Finding(kind, row["table_name"], "", severity, text, began, None, observed=observed, expected=expected, query=query)

    if unaccounted:
        yield found(
            "records_unaccounted",
            f"{plural(unaccounted, 'record of bronze is', 'records of bronze are')} {_UNACCOUNTED}",
            at,
            unaccounted,
            0,
        )
    if lost:
        which = (problems is None and row["status_reason"]) or ""
        text = f"Bronze lacks {plural(lost, 'record')} that Kafka had. {which}".strip()
        yield found("records_lost", text, at, lost, 0)
    elif row["table_name"] == "bronze_events":  # a topic that was recreated: nobody knows how many
        severity = "critical" if row["status"] == "Unhealthy" else "warning"
        yield found("records_lost", row["status_reason"], at, None, severity=severity)
        return
    if problems is None:  # a row of an earlier version, or of a loss
        is_stale = row["status"] == "Unhealthy" and not unaccounted and not lost
        problems = {"stale": row["status_reason"] or "the newest event is too old"} if is_stale else {}
    if stale := problems.get("stale"):
        text = f"{stale.capitalize()}."
        began = utc(row["latest_event_time"]) or at
        yield found("stale", text, began, row["freshness_seconds"], row["expected_freshness_seconds"])
    rejected, repeated = row["quarantined_events"] or 0, row["duplicate_events"] or 0
    records = _taken(row)
    if text := problems.get("records_rejected"):
        share = 100 * rejected / records
        yield found("records_rejected", _sentence(text), at, share, severity="critical" if share >= CRITICAL_PCT else "warning")
    if text := problems.get("records_repeated"):
        yield found("records_repeated", _sentence(text), at, 100 * repeated / records, severity="warning")
    if conflicts := row["conflicting_events"]:
        repeat = plural(conflicts, "record repeats the id of an event and has", "records repeat the id of an event and have")
        text = f"{repeat} other content: silver keeps the first."
        yield replace(found("records_conflicting", text, at, conflicts, 0, severity="warning"), query=_conflicts_query(settings, at))


def _taken(row: Row) -> int:
    """How many records were new at a look, whatever became of them."""
    return sum(row[name] or 0 for name in ("records", "quarantined_events", "duplicate_events"))


def _sentence(text: str) -> str:
    return text if text.endswith("?") else f"{text}."


def _conflicts_query(settings: Settings, at: datetime) -> str:
    """The conflicts that there were at this time, the newest first."""
    bronze, duplicates = (_plain(settings, name) for name in ("bronze_events", "duplicate_events"))
    return (
        "SELECT d.event_id, d.topic, d.partition, d.offset, d.processed_at, CAST(b.raw_payload AS STRING) AS payload "
        f"FROM {duplicates} AS d LEFT JOIN {bronze} AS b USING (topic_id, partition, offset) "
        f"WHERE d.is_conflict AND d.processed_at <= TIMESTAMP{sql_text(at.isoformat())} ORDER BY d.processed_at DESC"
    )


_UNACCOUNTED = "not in exactly one of silver, duplicates and open quarantine."
_NOUNS = {"spike": "spike", "missing_pattern": "silence"}
_DRIFT_KEY = ("table_name", "kind", "column_name")
_ANOMALY_KEY = ("table_name", "anomaly_type", "series")


def _by(rows: pd.DataFrame, key: tuple[str, ...]) -> Iterator[tuple[tuple, pd.DataFrame]]:
    """The rows by what they are about."""
    if rows.empty:
        return iter(())
    rows = rows.fillna({name: "" for name in (*key, "metric", "slice") if name in rows})
    if "metric" in rows:
        rows = rows.assign(kind=[kind_of(table, metric) for table, metric in zip(rows["table_name"], rows["metric"], strict=True)])
    return iter(rows.groupby(list(key), sort=True))


def _of_drift(rows: pd.DataFrame, settings: Settings) -> Iterator[Finding]:
    for (table, kind, column), judged in _by(rows, _DRIFT_KEY):
        part = judged[judged["is_drift"].astype(bool)]
        if part.empty:
            continue
        # By what it was against its threshold; a change of schema has none, and is told by its share.
        size = part["value"].abs().where(part["metric"] != "std_ratio", np.maximum(part["value"], 1 / part["value"].clip(lower=1e-9)))
        worst = part.loc[_worst(part, size / part["threshold"].where(part["threshold"] > 0, 1))].to_dict()
        is_schema = kind == "schema_change"
        if is_schema:
            verb = {"schema_added": "is new and not in the contract", "schema_removed": "is missing", "schema_retyped": "has another type"}
            change = verb.get(worst["metric"], worst["metric"])
            of = "of the new records have it, first seen" if worst["metric"] == "schema_added" else "of the records when it began,"
            detail = worst.get("detail")  # a table of an older version has no such column
            change += f" ({harmless(detail)})" if isinstance(detail, str) else ""
            said = f"Field {harmless(column, NAME)} {change}: {worst['value']:.3g} % {of}"
        else:
            _, critical = THRESHOLDS.get(worst["metric"], (None, None))
            limits = f"limit {worst['threshold']:g}" + (f", critical from {critical:g}" if critical else "")
            if worst["metric"] == "std_ratio":
                limits += f", or up to {1 / worst['threshold']:.2g}"
            windows = f"drift in {part['window_start'].nunique():,} of {plural(judged['window_start'].nunique(), 'window')} judged"
            said = f"{harmless(column, NAME)}{_of_slice(worst)}: worst {worst['metric']} {worst['value']:.3g} ({limits}); {windows},"
        query = (
            f"SELECT * FROM {_plain(settings, 'drift_metrics')} WHERE look = {worst['look']} AND column_name = {sql_text(column)} "
            f"AND is_drift AND comparison <> 'previous' AND metric {'' if is_schema else 'NOT '}LIKE 'schema%' "
            "ORDER BY abs(value) / nullif(threshold, 0) DESC NULLS LAST, window_start"
        )
        found = _finding(kind, table, column, part, said, query, worst["metric"], worst["value"], threshold=worst["threshold"] or None)
        yield replace(found, is_ongoing=bool(part["window_start"].max() == judged["window_start"].max()))


def _of_anomalies(rows: pd.DataFrame, newest: datetime | None, settings: Settings) -> Iterator[Finding]:
    for (table, kind, series), part in _by(rows, _ANOMALY_KEY):
        # The alert has the time of the one row that it reports.
        incidents = _incidents(part) if kind in ("missing_pattern", "spike") else []
        is_ongoing = kind != "missing_pattern" or newest is None or incidents[-1]["window_end"].max() + _STILL >= newest
        # A silence that goes on matters more than one that was longer, and is over.
        told = incidents[-1] if kind == "missing_pattern" and is_ongoing else part
        label = _worst(told, told["score"].abs() / told["threshold"])
        worst = part.loc[label].to_dict()
        name, where = harmless(series, NAME), _of_slice(worst)
        numbers = f"{_number(worst['observed'])} where {_number(worst['expected'])} is usual"
        score = f"({worst['detector']} {worst['score']:.3g}, limit {worst['threshold']:.3g})"
        if kind == "outlier":
            events = part["event_id"].nunique()  # none: minutes with a strange mean
            strange = plural(events, "strange event") if events else "strange minutes"
            said = f"{strange} by {name}; the strangest{where}: {numbers} {score}"
        elif kind == "missing_pattern":
            length = duration((worst["window_end"] - worst["window_start"]).total_seconds())
            said = f"{name}{where}: {_number(worst['observed'])} in {length}, where {_number(worst['expected'])} are usual"
        elif kind == "spike":
            said = f"{name}{where}: {numbers} in the strangest minute {score}"
        else:
            said = f"{name}{where}: {numbers} {score}"
        query = (
            f"SELECT * FROM {_plain(settings, 'anomaly_logs')} WHERE look = {worst['look']} AND anomaly_type = '{kind}' "
            f"AND series = {sql_text(series)} ORDER BY abs(score) / threshold DESC"
        )
        numbers = (worst[name] for name in ("detector", "observed", "expected", "score", "threshold"))
        found = _finding(kind, table, series, part.loc[[label]] if incidents else part, f"{said},", query, *numbers)
        besides = f" The query shows {plural(len(incidents) - 1, f'other {_NOUNS[kind]}')}." if len(incidents) > 1 else ""
        yield replace(found, text=f"{found.text}{besides}", count=len(part), is_ongoing=is_ongoing)


def _incidents(rows: pd.DataFrame) -> list[pd.DataFrame]:
    """The rows of each incident, which has one for each detector and slice that saw it; the oldest first."""
    numbers = together(list(zip(rows["window_start"], rows["window_end"], strict=True)))
    return [of_one for _, of_one in rows.groupby(numbers)]


def _worst(rows: pd.DataFrame, size: pd.Series) -> Any:
    """The label of the row of the greatest size, among those of the highest severity."""
    ranks = _severities(rows).map(SEVERITIES.index)
    return size.fillna(0)[ranks == ranks.max()].idxmax()


def _severities(rows: pd.DataFrame) -> pd.Series:
    return rows["severity"].where(rows["severity"].isin(SEVERITIES), "warning")


def _finding(
    kind: str,
    table: str,
    subject: str,
    rows: pd.DataFrame,
    said: str,
    query: str,
    metric: str,
    observed: float,
    expected: float | None = None,
    score: float | None = None,
    threshold: float | None = None,
) -> Finding:
    """Rows of one look about one thing as a finding."""
    severity = max(_severities(rows), key=SEVERITIES.index)
    begins = rows["window_start"].fillna(rows["event_time"]) if "event_time" in rows else rows["window_start"]
    ends = rows["window_end"].fillna(begins)
    began, ended = (utc(at.to_pydatetime()) if pd.notna(at) else None for at in (begins.min(), ends.max()))
    numbers = (None if one is None or isnan(one) else float(one) for one in (observed, expected, score, threshold))
    return Finding(kind, table, subject, severity, f"{said} {_span(began, ended)}.", began, ended, len(rows), metric, *numbers, query)


def _of_slice(row: Mapping[str, Any]) -> str:
    return "" if row["slice"] in (None, "", "*") else f" of {harmless(row['slice'], NAME)}"


def _number(value: float | None) -> str:
    if value is None or isnan(value):
        return "nothing"
    return f"{value:,.0f}" if abs(value) >= 1000 or value == round(value) else f"{value:,.3g}"


def _span(began: datetime | None, ended: datetime | None) -> str:
    begin, end = utc(began), utc(ended)
    if begin is None:
        return "now"
    if end is None or end <= begin:
        return f"{begin:%Y-%m-%d %H:%M} UTC"
    same_day = begin.date() == end.date()
    return f"{begin:%Y-%m-%d %H:%M} to {end:{'%H:%M' if same_day else '%Y-%m-%d %H:%M'}} UTC"


def _plain(settings: Settings, table: str) -> str:
    """A table's name as people type it: with backticks only where it needs them."""
    parts = (settings.catalog, settings.schema, table)
    return ".".join(part if part.replace("_", "").isalnum() else f"`{part}`" for part in parts)
