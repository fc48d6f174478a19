"""What the pipeline found, against the truth about what the generator had put in. For people and tests; no stage reads this."""

import json
from collections import Counter
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any, NamedTuple

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from streaming_pipeline.core.errors import UsageError
from streaming_pipeline.core.settings import Settings
from streaming_pipeline.core.wording import duration, plural
from streaming_pipeline.events.spoilt_payloads import SPOILT
from streaming_pipeline.events.synthetic import EVENT_FAULTS, FAULTS, WINDOW_FAULTS
from streaming_pipeline.monitoring.baseline import MIN_RECORDS
from streaming_pipeline.monitoring.incidents import together

# window fault → (table, how the findings look that count for it)
_FINDINGS = {
    "spike": ("anomaly_logs", "anomaly_type = 'spike'"),
    "gap": ("anomaly_logs", "anomaly_type = 'missing_pattern'"),
    # Where a drift ends the window before looks other too.
    "drift": ("drift_metrics", "is_drift AND comparison = 'baseline'"),
}


class Verdict(NamedTuple):
    """How many faults of one kind were put in, and how many of these the tables show as they should."""

    kind: str
    injected: int
    found: int
    note: str


def judge(spark: SparkSession, settings: Settings, truth_path: Path) -> list[Verdict]:
    """One verdict for each kind of fault in the truth, and a last one, `records`, for what became of every record produced.

    The truth is what `write_ground_truth` wrote, for one or more productions into the topic that the tables were made from. Raises
    `UsageError` if there is none.
    """
    truth = _read_truth(truth_path)
    held = {kind: [line for line in truth if line["kind"] == kind] for kind in FAULTS}
    verdicts = []
    for kind in EVENT_FAULTS:
        if not held[kind]:
            continue
        if kind in SPOILT:
            verdicts.append(_judge_spoilt(spark, settings, kind, held[kind]))
        elif kind == "redelivery":
            verdicts.append(_judge_redeliveries(spark, settings, held[kind]))
        elif kind == "late":
            verdicts.append(_judge_late(spark, settings, held[kind]))
        else:
            verdicts.append(_judge_outliers(spark, settings, held[kind]))
    verdicts += [_judge_windows(spark, settings, kind, held[kind]) for kind in WINDOW_FAULTS if held[kind]]
    if held["new_field"]:
        verdicts.append(_judge_new_field(spark, settings, held["new_field"]))
    return [*verdicts, _judge_records(spark, settings, [line for line in truth if line["kind"] == "summary"])]


def _read_truth(path: Path) -> list[dict[str, Any]]:
    try:
        with path.open(encoding="utf-8") as file:
            return [json.loads(line) for line in file]
    except FileNotFoundError:
        raise UsageError(f"{path} does not exist: produce events here first, and it lists the faults among them.") from None
    except ValueError as error:
        raise UsageError(f"{path} is not JSON lines ({error}): this project's generator did not write it.") from None


def _table(spark: SparkSession, settings: Settings, name: str) -> DataFrame | None:
    """The table, or None if it does not exist."""
    return spark.table(settings.table(name)) if spark.catalog.tableExists(settings.table(name)) else None


def _missing(kind: str, injected: int, table: str) -> Verdict:
    return Verdict(kind, injected, 0, f"the table {table} does not exist yet")


def _ids(spark: SparkSession, lines: list[dict[str, Any]]) -> DataFrame:
    """One row per injected event: `event_id, variant`."""
    rows = sorted({(line["event_id"], line.get("variant", "")) for line in lines})
    return F.broadcast(spark.createDataFrame(rows, "event_id string, variant string"))


def _judge_redeliveries(spark: SparkSession, settings: Settings, lines: list[dict[str, Any]]) -> Verdict:
    table = _table(spark, settings, "duplicate_events")
    if table is None:
        return _missing("redelivery", len(lines), "duplicate_events")
    # An event that is sent again and again, as by the same production twice, counts as often as it was put in.
    injected = Counter(line["event_id"] for line in lines)
    counted = spark.createDataFrame(list(injected.items()), "event_id string, injected long")
    per_event = table.groupBy("event_id").agg(F.count("*").alias("recorded"))
    found = per_event.join(F.broadcast(counted), "event_id", "left").agg(
        F.sum(F.when(F.col("injected").isNotNull(), F.least("recorded", "injected"))).alias("found"), F.sum("recorded").alias("recorded")
    )
    row = found.first()
    recorded = row["recorded"] or 0
    return Verdict("redelivery", len(lines), row["found"] or 0, f"{plural(recorded, 'row')} in duplicate_events")


def _judge_spoilt(spark: SparkSession, settings: Settings, kind: str, lines: list[dict[str, Any]]) -> Verdict:
    """Rejected payloads are known by their hash; several may be the same, such as empty ones, so they are counted."""
    table = _table(spark, settings, "quarantined_events")
    if table is None:
        return _missing(kind, len(lines), "quarantined_events")
    injected = Counter((line["payload_sha256"] or "", line["reason"]) for line in lines)
    truth = spark.createDataFrame([(*key, n) for key, n in injected.items()], "hash string, reason string, injected long")
    hashed = table.select(F.coalesce(F.sha2("raw_payload", 256), F.lit("")).alias("hash"), "reasons")
    rejected = (
        hashed.join(F.broadcast(truth), "hash", "inner")
        .groupBy("hash", "reason")
        .agg(
            F.first("injected").alias("injected"),
            F.count("*").alias("rejected"),
            F.count_if(F.array_contains("reasons", F.col("reason"))).alias("as_expected"),
        )
        .agg(F.sum(F.least("injected", "rejected")).alias("rejected"), F.sum(F.least("injected", "as_expected")).alias("as_expected"))
    )
    row = rejected.first()
    rejected_count, found = row["rejected"] or 0, row["as_expected"] or 0
    absent, otherwise = len(lines) - rejected_count, rejected_count - found
    notes = [
        f"{plural(absent, 'record is', 'records are')} not in quarantined_events" if absent else "",
        f"{plural(otherwise, 'record was', 'records were')} rejected for another reason" if otherwise else "",
    ]
    return Verdict(kind, len(lines), found, ", ".join(filter(None, notes)) or "in quarantined_events, each with its reason")


def _judge_late(spark: SparkSession, settings: Settings, lines: list[dict[str, Any]]) -> Verdict:
    """Late is what these settings call late."""
    limit = settings.late_after_seconds
    late = [line for line in lines if line["late_seconds"] > limit]
    table = _table(spark, settings, "silver_events")
    if table is None:
        return _missing("late", len(late), "silver_events")
    row = (
        table.where(F.unix_millis("kafka_timestamp") - F.unix_millis("timestamp") > limit * 1000)
        .join(_ids(spark, late), "event_id", "left")
        .agg(F.count("variant").alias("found"), F.count("*").alias("late"))
        .first()
    )
    return Verdict("late", len(late), row["found"], f"{plural(row['late'], 'event')} in silver_events more than {duration(limit)} late")


def _judge_outliers(spark: SparkSession, settings: Settings, lines: list[dict[str, Any]]) -> Verdict:
    table = _table(spark, settings, "gold_anomaly_predictions")
    if table is None:
        return _missing("outlier", len(lines), "gold_anomaly_predictions")
    rows = (
        table.join(_ids(spark, lines), "event_id", "left")
        .groupBy(F.coalesce("variant", F.lit("")).alias("variant"))
        .agg(F.count_if(F.col("anomaly_flag") == -1).alias("flagged"))
        .collect()
    )
    flagged = {row["variant"]: row["flagged"] for row in rows}
    injected = Counter(line["variant"] for line in lines)
    found = sum(flagged.get(variant, 0) for variant in injected)
    total = sum(flagged.values())
    by_variant = ", ".join(f"{variant} {flagged.get(variant, 0):,} of {n:,}" for variant, n in sorted(injected.items()))
    precision = f"precision {found / total:.1%} of {plural(total, 'flagged event')}" if total else "no event is flagged"
    return Verdict("outlier", len(lines), found, f"recall {found / len(lines):.1%}, {precision}; {by_variant}")


def _judge_windows(spark: SparkSession, settings: Settings, kind: str, lines: list[dict[str, Any]]) -> Verdict:
    """A window fault is found where a finding of its kind has a window that overlaps its own."""
    name, condition = _FINDINGS[kind]
    table = _table(spark, settings, name)
    if table is None:
        return _missing(kind, len(lines), name)
    windows = [(n, line["window_start"], line["window_end"]) for n, line in enumerate(lines)]
    truth = spark.createDataFrame(windows, "place int, injected_start string, injected_end string").select(
        "place", F.to_timestamp("injected_start").alias("injected_start"), F.to_timestamp("injected_end").alias("injected_end")
    )
    overlaps = (F.col("window_start") < F.col("injected_end")) & (F.col("window_end") > F.col("injected_start"))
    rows = table.where(condition).select("window_start", "window_end").distinct().join(F.broadcast(truth), overlaps, "left").collect()
    # Whatever is reported elsewhere: several detectors, metrics or windows that follow each other are one incident.
    elsewhere = len(set(together([(row["window_start"], row["window_end"]) for row in rows if row["place"] is None])))
    found = len({row["place"] for row in rows} - {None})
    note = f"{plural(elsewhere, 'other incident')} of this kind in {name}" if rows else f"no such finding in {name}"
    if found < len(lines) and (silver := _table(spark, settings, "silver_events")) is not None:
        times = silver.agg(F.count("*"), F.unix_seconds(F.max("timestamp")) - F.unix_seconds(F.min("timestamp"))).first()
        rate = 3600 * times[0] / max(times[1] or 0, 1)
        few = f": {plural(round(rate), 'event')} an hour, and a window is judged only with {MIN_RECORDS} or more"
        note += few if rate < MIN_RECORDS else ""
    return Verdict(kind, len(lines), found, note)


def _judge_new_field(spark: SparkSession, settings: Settings, lines: list[dict[str, Any]]) -> Verdict:
    """A field that the contract does not know rejects no event: counted are the events that carry it."""
    carriers = sum(line["valid_events"] for line in lines)
    table = _table(spark, settings, "silver_events")
    if table is None:
        return _missing("new_field", carriers, "silver_events")
    number = F.expr("try_cast(event_id AS BIGINT)")
    kept = table.where(reduce(or_, [number.between(int(line["first_event_id"]), int(line["last_event_id"])) for line in lines])).count()
    fields = ", ".join(sorted({line["field"] for line in lines}))
    drifts = _table(spark, settings, "drift_metrics")
    is_reported = drifts is not None and not drifts.where("metric = 'schema_added'").isEmpty()
    where = "drift_metrics reports it" if is_reported else "drift_metrics does not report it"
    return Verdict("new_field", carriers, kept, f"silver keeps the events, bronze their unknown field {fields}; {where}")


def _judge_records(spark: SparkSession, settings: Settings, summaries: list[dict[str, Any]]) -> Verdict:
    """Every record produced is exactly one of silver, duplicate or open quarantine."""
    produced = sum(summary["records"] for summary in summaries)
    counts = {}
    for name in ("silver_events", "duplicate_events", "quarantined_events"):
        table = _table(spark, settings, name)
        if table is None:
            return _missing("records", produced, name)
        counts[name] = (table.where("resolved_at IS NULL") if name == "quarantined_events" else table).count()
    expected = {
        "silver_events": sum(summary["valid_events"] for summary in summaries),
        "duplicate_events": sum(summary["duplicates"] for summary in summaries),
        "quarantined_events": sum(sum(summary["quarantined"].values()) for summary in summaries),
    }
    note = " + ".join(f"{counts[name]:,} in {name} ({expected[name]:,} expected)" for name in counts)
    return Verdict("records", produced, sum(counts.values()), note)
