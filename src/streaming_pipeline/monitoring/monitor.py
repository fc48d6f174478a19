"""One look at the stream after each run → one row of `monitor_logs`."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta

from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import functions as F

from streaming_pipeline.bronze.ingest import goes_on
from streaming_pipeline.core import tables
from streaming_pipeline.core.at_once import at_once
from streaming_pipeline.core.contract import load_contract
from streaming_pipeline.core.coordinates import behind
from streaming_pipeline.core.errors import PipelineError
from streaming_pipeline.core.foreign_text import NAME, harmless
from streaming_pipeline.core.run_log import step_rate
from streaming_pipeline.core.settings import Settings
from streaming_pipeline.core.wording import plural
from streaming_pipeline.detectors import DETECTORS
from streaming_pipeline.kafka import connection as kafka
from streaming_pipeline.monitoring import conservation
from streaming_pipeline.monitoring.conservation import Conservation, Offsets
from streaming_pipeline.monitoring.degradation import MOST_LOOKS, Figures, judge_figures
from streaming_pipeline.monitoring.detection import Asked, Detection, ask, begin_look, detect
from streaming_pipeline.monitoring.findings import MonitoringRun, write_worse
from streaming_pipeline.monitoring.freshness import Freshness, freshness, health, problems
from streaming_pipeline.monitoring.intake import Intake
from streaming_pipeline.monitoring.profile import ALL
from streaming_pipeline.monitoring.windows import utc

_MOST_FIELDS = 5


@dataclass(frozen=True)
class MonitorLog:
    """One row of `monitor_logs`; the table says what each column holds."""

    run_time: datetime
    look: int
    run_id: str
    table_name: str
    records: int
    late_events: int
    duplicate_events: int
    conflicting_events: int
    quarantined_events: int
    unaccounted_records: int
    lost_records: int | None
    latest_event_time: datetime | None
    freshness_seconds: float | None
    expected_freshness_seconds: float | None
    lateness_p50_seconds: float | None
    lateness_p95_seconds: float | None
    lateness_p99_seconds: float | None
    unknown_fields: dict[str, int]
    kafka_lag_records: int | None
    findings: dict[str, int]
    incidents: dict[str, int]
    figures: dict[str, float]
    figures_of: dict[str, int]
    status: str
    status_reason: str | None
    problems: dict[str, str]
    totals: dict[str, int]
    read_until: dict[str, int]
    verified_until: dict[str, int]

    @property
    def note(self) -> str:
        """Both verdicts in a line: how the pipeline does, and what happened in the data."""
        reason = f" ({self.status_reason})" if self.status_reason else ""
        worse = self.incidents.get("degradation", 0)
        degraded = f", {plural(worse, 'figure is', 'figures are')} worse than usual" if worse else ""
        listed = [
            f"{harmless(name, NAME)} ({plural(records, 'record')})" for name, records in list(self.unknown_fields.items())[:_MOST_FIELDS]
        ]
        fields = f"; fields that the contract lacks: {', '.join(listed)}" if listed else ""
        return f"Pipeline: {self.status}{reason}{degraded}. Data: {self._happened}{fields}"

    @property
    def _happened(self) -> str:
        """What this monitoring run found in the data, in words: `2 incidents (1 drift, 1 spike), 7 outliers`."""
        if self.latest_event_time is None:
            return "not judged yet"
        outliers, conflicts = self.incidents.get("outlier", 0), self.conflicting_events
        kinds = {kind: number for kind, number in sorted(self.incidents.items()) if kind not in ("outlier", "degradation")}
        named = ", ".join(f"{number:,} {kind.replace('_', ' ')}" for kind, number in kinds.items())
        parts = (
            f"{plural(sum(kinds.values()), 'incident')} ({named})" if kinds else "no incidents",
            plural(outliers, "outlier") if outliers else "",
            plural(conflicts, "record has", "records have") + " the id of an event and other content" if conflicts else "",
        )
        return ", ".join(filter(None, parts))


def monitor_silver_events(spark: SparkSession, settings: Settings) -> MonitorLog:
    """Look at what is new in the tables since the last look, write it to `monitor_logs` and return it.

    The row itself says where the next look begins, so that a look which crashes has either happened or not.
    """
    contract = load_contract(settings.contract_path)
    # Only what is read here: gold is made by a task that runs beside this one.
    created = tables.create_missing(spark, settings, [*tables.record_tables(contract), tables.MONITOR_LOGS])
    earlier, totals = at_once(
        lambda: [] if tables.MONITOR_LOGS.name in created else _newest_runs(spark, settings, 1 + MOST_LOOKS),
        lambda: conservation.count_rows(spark, settings),
    )
    last = earlier[0] if earlier else None
    read_before: Offsets = last["read_until"] if last else {}
    verified_before: Offsets = last["verified_until"] if last else {}
    # The first look sees all there is. One behind rows of an older version, which had no numbers, is none.
    look = (last["look"] or 1) + 1 if last else 1
    begun = begin_look(spark, settings, look)
    if last and last["totals"] == totals and read_before == verified_before and not last["unaccounted_records"]:
        # All was in order and no row has come since: there is nothing to read.
        law, new, asked, conflicts = Conservation(unaccounted=0), None, Asked(), 0
        seen, rate = Freshness(0, 0, None, None), None
    else:
        new = _new_rows(spark, settings, "silver_events", "processed_at", last)
        bronze = _new_rows(spark, settings, "bronze_events", "ingested_at", last)
        quarantined = _new_rows(spark, settings, "quarantined_events", "quarantined_at", last)
        repeated = _new_rows(spark, settings, "duplicate_events", "processed_at", last)
        law, seen, rate, conflicts, asked = at_once(
            lambda: conservation.check(spark, settings, verified_before, totals),
            lambda: freshness(new, contract, settings.late_after_seconds),
            lambda: step_rate(spark, settings, "silver_write"),
            lambda: repeated.where("is_conflict").count(),
            lambda: ask(spark, settings, contract, begun, new, bronze, quarantined, datetime.now(UTC)),
        )
    counted_until = {**read_before, **{span.key: span.last + 1 for span in law.spans}}
    lost, lag = _ask_kafka(spark, settings, law, counted_until)
    # Looked at again from where they were: everything if records are unaccounted for; a partition if some of its records are lost, or
    # if Kafka could not be asked about its gaps.
    unclear = {span.key for span in law.spans if law.unaccounted or (span.has_gap and (lost is None or lost.get(span.key)))}
    clear = {key: offset for key, offset in counted_until.items() if key not in unclear}
    verified_until = {**verified_before, **clear}
    lost_records = None if lost is None else sum(lost.values())

    now = datetime.now(UTC)
    detection = detect(spark, settings, contract, begun, new, asked, now, lag)

    # After the queries and after Kafka was asked: the row tells of the tables as they were until now. Behind the last look also where
    # the clock was set back since: the newest row is where the next look begins.
    run_time = datetime.now(UTC)
    if last:
        run_time = max(run_time, utc(last["run_time"]) + timedelta(milliseconds=1))
    times = [utc(value) for value in (seen.latest_event_time, last["latest_event_time"] if last else None) if value]
    latest = max(times) if times else None
    age = (run_time - latest).total_seconds() if latest else None
    before = last["totals"] if last else {}
    more = {name: max(0, rows - before.get(name, 0)) for name, rows in totals.items()}  # fewer, where rows were deleted
    intake = Intake(more["silver_events"], more["quarantined_events"], more["duplicate_events"], _by_reason(asked.rejected))
    wrong = problems(
        unaccounted=law.unaccounted,
        lost=lost_records,
        freshness_seconds=age,
        freshness_limit_seconds=settings.freshness_limit_seconds,
        silent_seconds=detection.silent_seconds,
        silence_allowed_seconds=detection.silence_allowed_seconds,
    )
    wrong |= intake.problems(settings.rejected_limit_pct, settings.repeated_limit_pct)
    # Said also of a few records, and by a look that has nothing new to look at: that no event has arrived would not be true.
    rejection = intake.rejection or _all_rejected(totals["open_quarantine"])
    status, reason = health(wrong, latest is not None, rejection)
    lateness = seen.lateness_seconds or (None, None, None)
    figures = _figures(seen, more, detection, rate)
    worse = judge_figures(figures, [Figures(row["figures"], row["figures_of"]) for row in earlier if row["figures"]])
    write_worse(
        spark, settings, MonitoringRun(look, settings.run_id, now, settings.window_minutes), worse, utc(last["run_time"]) if last else now
    )
    degraded = {"degradation": len(worse)} if worse else {}
    row = MonitorLog(
        run_time=run_time,
        look=look,
        run_id=settings.run_id,
        table_name="silver_events",
        records=more["silver_events"],
        late_events=seen.late_events,
        duplicate_events=more["duplicate_events"],
        conflicting_events=conflicts,
        quarantined_events=more["quarantined_events"],
        unaccounted_records=law.unaccounted,
        lost_records=lost_records,
        latest_event_time=latest,
        freshness_seconds=age,
        expected_freshness_seconds=detection.silence_allowed_seconds,
        lateness_p50_seconds=lateness[0],
        lateness_p95_seconds=lateness[1],
        lateness_p99_seconds=lateness[2],
        unknown_fields=detection.unknown_fields,
        kafka_lag_records=lag,
        findings=detection.written.findings | degraded,
        incidents=detection.written.incidents | degraded,
        figures=dict(figures.values),
        figures_of=dict(figures.records),
        status=status,
        status_reason="; ".join(filter(None, (reason, begun.damaged))) or None,
        problems=wrong,
        totals=totals,
        read_until=counted_until,
        verified_until=verified_until,
    )
    tables.append_rows(spark, settings, tables.MONITOR_LOGS, [asdict(row)])
    return row


def _newest_runs(spark: SparkSession, settings: Settings, most: int) -> list[Row]:
    """The rows about silver, the newest first."""
    rows = spark.table(settings.table("monitor_logs")).where(F.col("table_name") == "silver_events")
    return rows.orderBy(F.col("run_time").desc()).limit(most).collect()


def _figures(seen: Freshness, more: dict[str, int], detection: Detection, rate: tuple[float, int] | None) -> Figures:
    """What is held against earlier looks: see `degradation.FIGURES`."""
    if not seen.records:
        return Figures({}, {})
    taken = seen.records + more["quarantined_events"]
    found = {
        "silver_yield_pct": (100 * seen.records / taken, taken),
        "late_pct": (100 * seen.late_events / seen.records, seen.records),
        "lateness_p95_seconds": (seen.lateness_seconds[1], seen.records),
        "outlier_pct": (100 * detection.written.findings.get("outlier", 0) / (len(DETECTORS) * seen.records), seen.records),
    }
    if detection.scored:
        found["flag_rate_pct"] = (100 * detection.flagged / detection.scored, detection.scored)
    if rate:
        found["silver_records_per_second"] = rate
    return Figures({name: value for name, (value, _) in found.items()}, {name: records for name, (_, records) in found.items()})


def _all_rejected(records: int) -> str:
    """That nothing but rejected records has come; empty if there are none of these either."""
    return f"no valid event so far, {plural(records, 'record was', 'records were')} rejected" if records else ""


def _by_reason(rejected: Mapping[tuple[int, str], int]) -> Counter[str]:
    """Rejected records by reason, of all windows."""
    found: Counter[str] = Counter()
    for (_, reason), count in rejected.items():
        if reason != ALL:
            found[reason] += count
    return found


def _new_rows(spark: SparkSession, settings: Settings, name: str, written_at: str, last: Row | None) -> DataFrame:
    """The rows of a table that are new since the last look: of offsets behind it, or, by a replay or backfill, written after it."""
    rows = spark.table(settings.table(name))
    if not last:
        return rows
    return rows.where(behind(last["read_until"]) | (F.col(written_at) > F.lit(last["run_time"])))


def _ask_kafka(
    spark: SparkSession, settings: Settings, law: Conservation, counted_until: Offsets
) -> tuple[dict[str, int] | None, int | None]:
    """(records lost by partition, records that wait on the topic); None where Kafka cannot be asked: monitoring must not fail by it.

    Three figures are held apart for each partition: where Kafka ends, where bronze's stream goes on, and where bronze's rows end. From
    the stream's place on records wait; what Kafka holds before it and bronze does not is lost.
    """
    try:
        connection = settings.kafka
        topic = kafka.topic_offsets(connection)
        if not topic.ends:
            return None, None
        place = {f"{topic.info.topic_id}/{partition}": offset for partition, offset in goes_on(settings, topic.info).items()}
        passed = {key: (counted_until.get(key, 0), offset) for key, offset in place.items() if offset > counted_until.get(key, 0)}
        lag = conservation.waiting_records(spark, connection, topic, {**counted_until, **{key: end for key, (_, end) in passed.items()}})
        return conservation.lost_records(spark, settings, topic, law.spans, passed), lag
    except Exception as error:
        # Anything but our own words may hold the options of the connection.
        reason = error if isinstance(error, PipelineError) else type(error).__name__
        print(f"Kafka did not say how many records wait or were lost: {reason}")
        return None, None
