"""One look at the stream after each run → one row of `monitor_logs`."""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta

from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import functions as F

from streaming_pipeline import kafka, tables
from streaming_pipeline.at_once import at_once
from streaming_pipeline.contract import load_contract
from streaming_pipeline.detectors import DETECTORS
from streaming_pipeline.errors import PipelineError
from streaming_pipeline.monitoring import conservation
from streaming_pipeline.monitoring.conservation import Conservation, Offsets
from streaming_pipeline.monitoring.degradation import MOST_LOOKS, Figures, judge_figures
from streaming_pipeline.monitoring.detection import Asked, Detection, ask, begin_look, detect
from streaming_pipeline.monitoring.findings import Look, write_worse
from streaming_pipeline.monitoring.freshness import Freshness, freshness, health
from streaming_pipeline.monitoring.windows import utc
from streaming_pipeline.run_log import step_rate
from streaming_pipeline.settings import Settings


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
    figures: dict[str, float]
    figures_of: dict[str, int]
    status: str
    status_reason: str | None
    totals: dict[str, int]
    read_until: dict[str, int]
    verified_until: dict[str, int]

    @property
    def note(self) -> str:
        """The status in a sentence."""
        said = ": ".join(filter(None, (self.status, self.status_reason)))
        listed = lambda counts: ", ".join(f"{name} ({count:,})" for name, count in counts)  # noqa: E731
        fields, findings = listed(list(self.unknown_fields.items())[:5]), listed(sorted(self.findings.items()))
        parts = (said, findings and f"findings: {findings}", fields and f"fields that the contract lacks: {fields}")
        return "; ".join(filter(None, parts))


def monitor_silver_events(spark: SparkSession, settings: Settings) -> MonitorLog:
    """Look at what is new in the tables since the last look, write it to `monitor_logs` and return it.

    The row itself says where the next look begins, so that a look which crashes has either happened or not.
    """
    contract = load_contract(settings.contract_path)
    # Only what is read here: gold is made by a task that runs beside this one.
    created = tables.create_missing(spark, settings, [*tables.record_tables(contract), tables.MONITOR_LOGS])
    earlier, totals = at_once(
        lambda: [] if tables.MONITOR_LOGS.name in created else _newest_looks(spark, settings, 1 + MOST_LOOKS),
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
        law, new, asked = Conservation(unaccounted=0), None, Asked()
        seen, rate = Freshness(0, 0, None, None), None
    else:
        new = _new_rows(spark, settings, "silver_events", "processed_at", last)
        bronze = _new_rows(spark, settings, "bronze_events", "ingested_at", last)
        quarantined = _new_rows(spark, settings, "quarantined_events", "quarantined_at", last)
        law, seen, rate, asked = at_once(
            lambda: conservation.check(spark, settings, verified_before, totals),
            lambda: freshness(new, contract, settings.late_after_seconds),
            lambda: step_rate(spark, settings, "silver_write"),
            lambda: ask(spark, settings, contract, begun, new, bronze, quarantined, datetime.now(UTC)),
        )
    read_until = {**read_before, **{span.key: span.last + 1 for span in law.spans}}
    lost, lag = _ask_kafka(spark, settings, law, read_until)
    # Looked at again from where they were: everything if records are unaccounted for; a partition if some of its records are lost, or
    # if Kafka could not be asked about its gaps.
    unclear = {span.key for span in law.spans if law.unaccounted or (span.has_gap and (lost is None or lost.get(span.key)))}
    clear = {key: offset for key, offset in read_until.items() if key not in unclear}
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
    status, reason = health(
        unaccounted=law.unaccounted,
        lost=lost_records,
        freshness_seconds=age,
        freshness_limit_seconds=settings.freshness_limit_seconds,
        silent_seconds=detection.silent_seconds,
        silence_allowed_seconds=detection.silence_allowed_seconds,
    )
    before = last["totals"] if last else {}
    more = {name: max(0, rows - before.get(name, 0)) for name, rows in totals.items()}  # fewer, where rows were deleted
    lateness = seen.lateness_seconds or (None, None, None)
    figures = _figures(seen, more, detection, rate)
    worse = judge_figures(figures, [Figures(row["figures"], row["figures_of"]) for row in earlier if row["figures"]])
    write_worse(spark, settings, Look(look, settings.run_id, now, settings.window_minutes), worse, utc(last["run_time"]) if last else now)
    row = MonitorLog(
        run_time=run_time,
        look=look,
        run_id=settings.run_id,
        table_name="silver_events",
        records=more["silver_events"],
        late_events=seen.late_events,
        duplicate_events=more["duplicate_events"],
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
        findings={**detection.findings, **({"degradation": len(worse)} if worse else {})},
        figures=dict(figures.values),
        figures_of=dict(figures.records),
        status=status,
        status_reason=reason,
        totals=totals,
        read_until=read_until,
        verified_until=verified_until,
    )
    tables.append_rows(spark, settings, tables.MONITOR_LOGS, [asdict(row)])
    return row


def _newest_looks(spark: SparkSession, settings: Settings, most: int) -> list[Row]:
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
        "outlier_pct": (100 * detection.findings.get("outlier", 0) / (len(DETECTORS) * seen.records), seen.records),
    }
    if detection.scored:
        found["flag_rate_pct"] = (100 * detection.flagged / detection.scored, detection.scored)
    if rate:
        found["silver_records_per_second"] = rate
    return Figures({name: value for name, (value, _) in found.items()}, {name: records for name, (_, records) in found.items()})


def _new_rows(spark: SparkSession, settings: Settings, name: str, written_at: str, last: Row | None) -> DataFrame:
    """The rows of a table that are new since the last look: of offsets behind it, or, by a replay or backfill, written after it."""
    rows = spark.table(settings.table(name))
    if not last:
        return rows
    return rows.where(conservation.behind(last["read_until"]) | (F.col(written_at) > F.lit(last["run_time"])))


def _ask_kafka(spark: SparkSession, settings: Settings, law: Conservation, read_until: Offsets) -> tuple[dict[str, int] | None, int | None]:
    """(records lost by partition, records that wait on the topic); None where Kafka cannot be asked: monitoring must not fail by it."""
    try:
        connection = settings.kafka
        topic = kafka.topic_offsets(connection)
        if not topic.ends:
            return None, None
        lag = conservation.waiting_records(spark, connection, topic, read_until)
        return conservation.lost_records(spark, settings, topic, law.spans), lag
    except Exception as error:
        # Anything but our own words may hold the options of the connection.
        print(f"Kafka could not be asked for lag and lost records: {error if isinstance(error, PipelineError) else type(error).__name__}")
        return None, None
