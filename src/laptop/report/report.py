"""The report: one page, without network, of what the local tables hold, what was wrong in the data and what to do about it."""

import re
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment
from markupsafe import Markup
from nbconvert.filters import markdown2html
from pyspark.errors import AnalysisException
from pyspark.sql import SparkSession

from laptop.folders import find_bundle
from laptop.jobs.run_page import EVENT_LOG, INDEX
from laptop.jobs.style import PAGE_CSS, page_environment
from laptop.models import has_models
from laptop.not_yet import why_missing
from laptop.quarantine import spelled
from laptop.report import charts, event_log
from laptop.services.spark import new_session
from laptop.sql import collected
from streaming_pipeline.alerts.findings import SEVERITIES, advice
from streaming_pipeline.alerts.incidents import data_verdict, incidents, pipeline_verdict, worst_of_data
from streaming_pipeline.core.at_once import at_once
from streaming_pipeline.core.contract import Contract, load_contract
from streaming_pipeline.core.settings import Settings
from streaming_pipeline.core.tables import all_tables
from streaming_pipeline.core.wording import duration, plural
from streaming_pipeline.gold.registry import versions
from streaming_pipeline.monitoring.scores import COLUMN as SCORE
from streaming_pipeline.queries import query

REPORT = "report.html"
DAYS = 60
"""The pictures show so many days at most, back from the newest event."""
MOST_INCIDENTS = 30
_QUERIES = (
    *("table_counts", "freshness", "windows", "lateness", "drift_map", "drift", "spikes_and_silences", "strange_events", "score_histogram"),
    *("top_anomalies", "model_versions", "alerts", "alert_delivery", "quarantine_reasons", "cluster_logs", "throughput", "run_cost"),
)


def write_report(spark: SparkSession, settings: Settings, home: Path) -> Path:
    """Write `<home>/report.html` from the tables of the settings (those of `laptop_settings`) and the folders of the runs; returns its
    path. For a table that is not there yet, or lacks a column, its part of the page says so."""
    spark, runbook = new_session(spark), find_bundle() / "docs" / "runbook.md"
    spark.sql(f"USE `{settings.catalog}`.`{settings.schema}`")
    contract = load_contract(settings.contract_path)
    page = _environment().from_string((files(__package__) / "report.html").read_text(encoding="utf-8"))
    path = home / REPORT
    path.write_text(
        page.render(css=PAGE_CSS, made_at=datetime.now(UTC), **_held(spark, settings, contract, home, runbook)), encoding="utf-8"
    )
    return path


def _held(spark: SparkSession, settings: Settings, contract: Contract, home: Path, runbook: Path) -> dict[str, Any]:
    """What the page shows."""
    sql = {name: query(name) for name in _QUERIES}
    sql["lateness"] = sql["lateness"].replace("`timestamp`", f"`{contract.event_time_field}`")
    asked = dict(zip(sql, at_once(*(partial(_rows, spark, text) for text in sql.values())), strict=True))
    if not asked["table_counts"]:  # one table that is not there yet must not hide the others
        asked["table_counts"] = [row for part in sql["table_counts"].split("UNION ALL ") for row in _rows(spark, part)]
    held = {row["tableName"] for row in spark.sql("SHOW TABLES").collect()}
    newest = max((w["window_start"] for w in asked["windows"]), default=None)
    # A new field is reported from the first run on, and scores are judged by another baseline.
    judged = (c["window_start"] for c in asked["drift_map"] if not c["metric"].startswith("schema") and c["column_name"] != SCORE)
    judged_from = min(judged, default=newest)
    for name, time in (("windows", "window_start"), ("lateness", "hour"), ("drift_map", "window_start")):
        asked[name] = [row for row in asked[name] if newest is None or newest - row[time] < timedelta(days=DAYS)]
    for row in asked["quarantine_reasons"]:
        row["values"] = spelled(row["frequent_values"], row["distinct_values"])
        row["newest"] = f"{row['partition']}/{row['offset']}"
    run = _newest_run(asked["cluster_logs"], asked["throughput"], asked["run_cost"], home)
    found = incidents(asked["alerts"])
    wrong = _wrong(found, runbook)
    look = asked["freshness"][-1] if asked["freshness"] else None
    status = look["status"] if look else None
    return {
        **asked,
        "sql": sql,
        "schema": settings.schema,
        "counts": {row["table_name"]: row["records"] for row in asked["table_counts"]},
        "missing": {table.name: why_missing(table.name) for table in all_tables(contract) if table.name not in held},
        "look": look,
        "pipeline": pipeline_verdict(status, found),
        "data": data_verdict(status, found),
        "worst": worst_of_data(found),
        "wrong": wrong,
        "not_shown": len(found) - len(wrong),
        "flagged": sum(row["flagged"] for row in asked["model_versions"]),
        "charts": _charts(asked, contract, judged_from),
        "run": run,
        "versions": versions(settings) if has_models(home) else [],
    }


def _rows(spark: SparkSession, text: str) -> list[dict[str, Any]]:
    try:
        frame = spark.sql(text)
        return [dict(zip(frame.columns, row, strict=True)) for row in collected(frame)]
    except AnalysisException as error:
        # No run has made it yet, or given an older table this column.
        if (error.getCondition() or "").startswith(("TABLE_OR_VIEW_NOT_FOUND", "UNRESOLVED_COLUMN")):
            return []
        raise


def _wrong(found: list[dict[str, Any]], runbook: Path) -> list[dict[str, Any]]:
    """The incidents, the worst and newest first, with what the runbook says of each kind."""
    steps = runbook_steps(runbook)
    order = sorted(found, key=lambda row: (-SEVERITIES.index(row["severity"]), -row["created_at"].timestamp()))
    return [
        {**row, "next": advice(row["anomaly_type"], row["state"].startswith("over")), "steps": steps.get(row["anomaly_type"])}
        for row in order[:MOST_INCIDENTS]
    ]


def runbook_steps(runbook: Path) -> dict[str, Markup]:
    """Heading of the runbook → what stands under it, as HTML; of those that are one word, as kinds of findings are."""
    # Its links to other pages lead nowhere from the report: their words alone stay.
    text = re.sub(r"\[([^\]]+)\]\((?!https?:)[^)]*\)", r"\1", runbook.read_text(encoding="utf-8"))
    parts = re.split(r"^#{2,4} `?(\w+)`?\s*$", text, flags=re.MULTILINE)
    return {
        kind: Markup(markdown2html(re.split(r"^#", text, maxsplit=1, flags=re.MULTILINE)[0]))
        for kind, text in zip(parts[1::2], parts[2::2], strict=True)
    }


def _charts(asked: dict[str, list], contract: Contract, judged_from: datetime | None) -> dict[str, list[tuple[str, Markup]]]:
    """Part of the page → its pictures, each with a caption; `judged_from` is when the first window that was compared begins."""
    windows, strange, made = asked["windows"], asked["strange_events"], {}

    def add(part: str, caption: str, figure: Any) -> None:
        made.setdefault(part, []).append((caption, Markup(charts.svg(figure, caption))))

    by_column: dict[str, list] = {}
    for window in windows if len({window["window_start"] for window in windows}) > 1 else ():  # one hour alone is no picture
        by_column.setdefault(window["column_name"], []).append(window)
    if contract.id_field in by_column:
        of_all = by_column[contract.id_field]
        period = charts.span([w["window_start"] for w in of_all])
        odd = [row for row in asked["spikes_and_silences"] if row["slice"] == "*"]
        add(
            "arrivals",
            f"Events per hour of event time, {period}, with the spikes and silences that were found",
            charts.arrivals(of_all, odd, judged_from),
        )
    if len(asked["lateness"]) > 1:
        names = {"p50_seconds": "median", "p95_seconds": "95 % of events"}
        caption = "Lateness: seconds from an event to its arrival in Kafka, by hour of event time"
        add("arrivals", caption, charts.lines(asked["lateness"], "hour", names, "seconds", log=True))
    if len(asked["freshness"]) > 1:
        names = {"freshness_seconds": "age of the newest event", "expected_freshness_seconds": "usual maximum"}
        add("arrivals", "Freshness at each monitoring run", charts.lines(asked["freshness"], "run_time", names, "seconds", log=True))
    rates = [row for row in asked["throughput"] if row["task"] in ("01_stream_kafka_to_bronze", "silver_write", "gold_write")]
    if len({row["run_id"] for row in rates}) > 1:
        for task in dict.fromkeys(row["task"] for row in rates):
            some = [row for row in rates if row["task"] == task]
            add(
                "runs",
                f"Throughput of {task}, run by run",
                charts.lines(some, "run_time", {"records_per_second": task}, "records a second"),
            )
    if asked["drift_map"]:
        caption = (
            "Drift by column and window. The colour is the worst metric as a share of its threshold, strongest at twice that; a dot marks "
            "drift, which must be significant too. A blank means too few events to judge, a baseline still being learnt, or an unknown "
            "field that was reported before. For anomaly_score each day is compared with the model's training"
        )
        others = {cell["column_name"] for cell in asked["drift_map"]} - {field.name for field in contract.fields}
        names = {name: f"{name} (not in the contract)" for name in others} | {"*": "all columns", SCORE: f"{SCORE} (the model's)"}
        add("drift", caption, charts.heat_map(asked["drift_map"], names))
    for field in contract.fields:
        if by_column.get(field.name) and any(w["p50"] is not None for w in by_column[field.name]):
            odd = [row for row in strange if row["series"] == field.name]
            caption = f"{field.name} by hour: median, middle 90 %, and strange events (detected once the baseline is learnt)"
            add("values", caption, charts.values(by_column[field.name], odd, field.name, judged_from))
    if asked["score_histogram"]:
        add("scores", "Scores of all events; those below 0 are flagged", charts.score_histogram(asked["score_histogram"]))
    return made


def _newest_run(cluster_logs: list[dict], steps: list[dict], costs: list[dict], home: Path) -> dict[str, Any] | None:
    """The newest run of the main job: its tasks, steps, cost, folder, notebooks' pages, and what Spark did to write silver."""
    ids = [row["run_id"] for row in cluster_logs if row["task_name"].startswith("01_")]
    if not ids:
        return None
    tasks = sorted((row for row in cluster_logs if row["run_id"] == ids[0]), key=lambda row: row["start_time"])
    folder = home / "runs" / ids[0]
    steps = [row for row in steps if row["run_id"] == ids[0]]
    writes = [
        (began := row["run_time"].replace(tzinfo=UTC).timestamp(), began + row["elapsed_seconds"])
        for row in steps
        if row["task"] == "silver_write"
    ]
    pages = sorted(file.name for file in folder.glob("*.html") if file.name != INDEX)
    return {
        "run_id": ids[0],
        "tasks": tasks,
        "steps": steps,
        "cost": next((row for row in costs if row["run_id"] == ids[0]), None),
        "index": f"runs/{quote(ids[0])}/{INDEX}" if (folder / INDEX).exists() else None,
        "pages": [(name.removesuffix(".html"), f"runs/{quote(ids[0])}/{quote(name)}") for name in pages],
        "timeline": Markup(charts.svg(charts.timeline(tasks), "When each task ran")),
        "jobs": event_log.jobs_within(folder / EVENT_LOG, writes),
    }


def _environment() -> Environment:
    environment = page_environment()
    environment.filters["cell"] = _cell
    environment.filters["seconds"] = lambda value: "unknown" if value is None else duration(value)
    environment.filters["plural"] = plural
    return environment


def _cell(value: Any) -> str:
    """A value of a table as people read it; times are UTC."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return str(value)
