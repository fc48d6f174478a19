"""Every table: its name, its grain ("one row per …"), its columns, how it is laid out; and creating what is missing.

Columns that come from the event contract stand where `contract_columns` puts them; all others are listed here.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import pyarrow as pa
from pyspark.sql import DataFrame, Observation, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import to_arrow_schema
from pyspark.sql.types import StructType

from streaming_pipeline.core.at_once import at_once
from streaming_pipeline.core.contract import Contract
from streaming_pipeline.core.errors import PipelineError
from streaming_pipeline.core.settings import Settings

Columns = tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class Table:
    """One table. `columns` are (name, SQL type, what it holds); statistics are kept on `statistics_on` alone, since they cost a write."""

    name: str
    grain: str
    columns: Columns
    partition_by: str | None = None
    statistics_on: tuple[str, ...] = ()
    history_days: int | None = None
    """So long the table can be read as it was; None for what Delta keeps by default (7 days)."""

    @property
    def properties(self) -> dict[str, str]:
        """The Delta table's properties."""
        properties = {"delta.checkpointInterval": "50"}
        if self.statistics_on:
            properties["delta.dataSkippingStatsColumns"] = ",".join(f"`{name}`" for name in self.statistics_on)
        if self.history_days:
            # The log alone would not do: VACUUM takes the files of old versions by the second.
            kept = f"interval {self.history_days} days"
            properties |= {"delta.logRetentionDuration": kept, "delta.deletedFileRetentionDuration": kept}
        return properties

    @property
    def column_names(self) -> list[str]:
        """The columns' names, in order."""
        return [name for name, _, _ in self.columns]


COORDINATES: Columns = (
    ("topic_id", "STRING", "Kafka's UUID of the topic: a recreated topic is another one"),
    ("topic", "STRING", "Kafka topic"),
    ("partition", "INT", "Kafka partition"),
    ("offset", "BIGINT", "offset within the partition"),
)


COORDINATE_NAMES = tuple(name for name, _, _ in COORDINATES)


def contract_columns(contract: Contract, typed: bool) -> Columns:
    """The contract's fields as columns: typed as silver has them, else as texts as bronze has them."""
    return tuple((f.name, f.spark_type.upper() if typed else "STRING", f.description) for f in contract.fields)


def bronze_events(contract: Contract) -> Table:
    """What arrived, unchanged."""
    return Table(
        "bronze_events",
        "Kafka record",
        (
            *COORDINATES,
            ("kafka_timestamp", "TIMESTAMP", "the record's timestamp"),
            ("timestamp_type", "INT", "0: set by the producer (CreateTime), 1: set by the broker (LogAppendTime)"),
            ("key", "BINARY", "the record's key, as received"),
            ("raw_payload", "BINARY", "the record's value, as received"),
            *contract_columns(contract, typed=False),
            ("event_date", "DATE", "UTC date of a valid event"),
            ("reasons", "ARRAY<STRING>", "why the contract rejects the record, as code or code:field; NULL if it does not"),
            ("unknown_fields", "ARRAY<STRING>", "fields of the payload that the contract lacks, at most 20; NULL if there are none"),
            ("contract_fingerprint", "STRING", "the contract by which the payload was parsed and judged"),
            ("ingested_at", "TIMESTAMP", "when bronze wrote it"),
        ),
        statistics_on=("topic_id", "partition", "offset", "kafka_timestamp", "ingested_at"),
    )


def silver_events(contract: Contract) -> Table:
    """Valid events, typed, one row each."""
    return Table(
        "silver_events",
        "event",
        (
            *contract_columns(contract, typed=True),
            ("event_date", "DATE", "UTC date of the event"),
            *COORDINATES,
            ("kafka_timestamp", "TIMESTAMP", "the record's timestamp"),
            ("contract_fingerprint", "STRING", "the contract that judged the record"),
            ("processed_at", "TIMESTAMP", "when silver wrote it"),
        ),
        partition_by="event_date",
        statistics_on=(contract.event_time_field, contract.id_field, "topic_id", "partition", "offset", "processed_at"),
    )


QUARANTINED_EVENTS = Table(
    "quarantined_events",
    "rejected record",
    (
        *COORDINATES,
        ("kafka_timestamp", "TIMESTAMP", "the record's timestamp"),
        ("raw_payload", "BINARY", "the record's value, as received"),
        ("stage", "STRING", "the stage that rejected it"),
        ("reasons", "ARRAY<STRING>", "every reason, as code or code:field"),
        ("contract_fingerprint", "STRING", "the contract that judged the record"),
        ("quarantined_at", "TIMESTAMP", "when it was rejected"),
        ("resolved_at", "TIMESTAMP", "when a replay made it an event or a duplicate; NULL while it is open"),
    ),
    statistics_on=("topic_id", "partition", "offset", "quarantined_at", "resolved_at"),
)

DUPLICATE_EVENTS = Table(
    "duplicate_events",
    "record whose event silver already has",
    (
        *COORDINATES,
        ("event_id", "STRING", "the event it repeats"),
        (
            "is_conflict",
            "BOOLEAN",
            "its content differs from that of the event kept, as the contract types it; NULL: not compared, "
            "since an earlier version wrote the row or bronze has lost one of the two",
        ),
        (
            "payload_hash",
            "STRING",
            "SHA-256 of its fields as the contract types them: one content has one, however it is written",
        ),
        ("processed_at", "TIMESTAMP", "when silver found it"),
    ),
    statistics_on=("topic_id", "partition", "offset", "processed_at"),
)


def gold_anomaly_predictions(contract: Contract) -> Table:
    """Scored events."""
    return Table(
        "gold_anomaly_predictions",
        "silver event scored",
        (
            *contract_columns(contract, typed=True),
            ("timestamp_unix", "DOUBLE", "event time in seconds since 1970"),
            ("anomaly_score", "DOUBLE", "the model's decision_function; lower is stranger"),
            ("anomaly_flag", "INT", "-1 for an anomaly, 1 for none"),
            ("explanation", "STRING", "which input drove the score of a flagged event, in words; NULL for others"),
            ("event_date", "DATE", "UTC date of the event"),
            *COORDINATES,
            ("kafka_timestamp", "TIMESTAMP", "the record's timestamp"),
            ("model_name", "STRING", "the registered model"),
            ("model_version", "STRING", "the version that scored the event"),
            ("scored_at", "TIMESTAMP", "when gold wrote it"),
        ),
        partition_by="event_date",
        statistics_on=(contract.event_time_field, "anomaly_score", "anomaly_flag", "topic_id", "partition", "offset", "scored_at"),
        history_days=90,
    )


MONITOR_LOGS = Table(
    "monitor_logs",
    "monitoring run and table",
    (
        ("run_time", "TIMESTAMP", "when monitoring ran"),
        ("look", "BIGINT", "number of the monitoring run; the rows that it wrote to other tables carry it too"),
        ("run_id", "STRING", "the job run"),
        ("table_name", "STRING", "the table that was monitored"),
        ("records", "BIGINT", "rows that are new since the last monitoring run, also by replay or backfill"),
        (
            "late_events",
            "BIGINT",
            "new events that reached Kafka more than late_after_seconds after they happened",
        ),
        ("duplicate_events", "BIGINT", "re-deliveries found since the last monitoring run"),
        ("conflicting_events", "BIGINT", "those of them whose content differs from that of the event kept"),
        ("quarantined_events", "BIGINT", "records rejected since the last monitoring run"),
        (
            "unaccounted_records",
            "BIGINT",
            "records of bronze not in exactly one of silver, duplicates and open quarantine; must be 0",
        ),
        (
            "lost_records",
            "BIGINT",
            "records that Kafka holds between bronze's first and the last that its stream has read, and bronze lacks; must be 0; NULL: not "
            "asked. In a row about bronze_events: records that expired unread (a loss that was accepted), or that bronze had and lost",
        ),
        ("latest_event_time", "TIMESTAMP", "event time of the newest event; of one dated ahead of Kafka's clock, its arrival"),
        ("freshness_seconds", "DOUBLE", "run_time - latest_event_time"),
        (
            "expected_freshness_seconds",
            "DOUBLE",
            "a longer silence is unusual at this time of day, by the stream's own history; NULL: not known yet",
        ),
        ("lateness_p50_seconds", "DOUBLE", "median of kafka_timestamp - event time, new rows"),
        ("lateness_p95_seconds", "DOUBLE", "95 % quantile of the same"),
        ("lateness_p99_seconds", "DOUBLE", "99 % quantile of the same"),
        (
            "unknown_fields",
            "MAP<STRING, BIGINT>",
            "fields of new payloads that the contract lacks -> records that have them (the 50 most frequent)",
        ),
        ("kafka_lag_records", "BIGINT", "records on the topic that bronze has not read yet, as the broker says; NULL: not asked"),
        ("findings", "MAP<STRING, BIGINT>", "kind -> rows that the monitoring run added to anomaly_logs, and to drift_metrics as drift"),
        (
            "incidents",
            "MAP<STRING, BIGINT>",
            "kind -> what happened, each thing once however many of these rows report it (docs/monitoring.md, Incidents)",
        ),
        ("figures", "MAP<STRING, DOUBLE>", "what is compared with earlier runs: yield, lateness, throughput, shares flagged and strange"),
        ("figures_of", "MAP<STRING, BIGINT>", "figure -> how many records it is computed from"),
        ("status", "STRING", "the pipeline's verdict: Healthy, Unhealthy or Unknown"),
        ("status_reason", "STRING", "why it is not Healthy"),
        ("problems", "MAP<STRING, STRING>", "the same by kind of finding: a sentence for each thing that is wrong"),
        ("totals", "MAP<STRING, BIGINT>", "rows of each table at this monitoring run; the next one counts from here"),
        ("read_until", "MAP<STRING, BIGINT>", "topic_id/partition -> offset up to which records were counted"),
        (
            "verified_until",
            "MAP<STRING, BIGINT>",
            "topic_id/partition -> offset up to which each record is accounted for, none lost",
        ),
    ),
)

_LOOK: Columns = (
    ("look", "BIGINT", "number of the monitoring run that wrote the row, as in monitor_logs"),
    ("run_id", "STRING", "the job run"),
    ("table_name", "STRING", "the table that was monitored"),
)

_WINDOW: Columns = (
    *_LOOK,
    ("window_start", "TIMESTAMP", "when the window begins, in event time"),
    ("window_end", "TIMESTAMP", "when it ends; not included"),
)
_SLICE = ("slice", "STRING", "value of the contract's slice field, (other) beyond the twenty most frequent; * for all")

PROFILE_METRICS = Table(
    "profile_metrics",
    "window, slice, column and monitoring run",
    (
        *_WINDOW,
        _SLICE,
        ("column_name", "STRING", "the column"),
        ("baseline_id", "BIGINT", "the baseline whose bins these are; NULL before the first"),
        ("records", "BIGINT", "rows that were new in this monitoring run; a late row is in a later run: add them up"),
        ("nulls", "BIGINT", "those of them without a value"),
        ("distinct_count", "BIGINT", "distinct values, to about 3 %"),
        ("distinct_sketch", "BINARY", "for merging: hll_sketch_estimate(hll_union_agg(distinct_sketch))"),
        ("avg", "DOUBLE", "mean of a number"),
        ("stddev", "DOUBLE", "standard deviation of the rows (not of a population they stand for)"),
        ("min", "DOUBLE", "smallest"),
        ("max", "DOUBLE", "largest"),
        ("quantiles", "MAP<STRING, DOUBLE>", "p01 … p99: the rank of each is wrong by less than the share of the bin that it lies in"),
        ("bin_counts", "ARRAY<BIGINT>", "rows in each bin of the baseline's edges: up to the first, …, above the last"),
        ("category_counts", "MAP<STRING, BIGINT>", "rows of each value of a field of few values"),
    ),
    statistics_on=("look", "window_start"),
)

DRIFT_METRICS = Table(
    "drift_metrics",
    "window, column, slice, metric and comparison",
    (
        *_WINDOW,
        ("column_name", "STRING", "the column; * for the share of columns that drift"),
        _SLICE,
        (
            "comparison",
            "STRING",
            "what it is compared with: baseline (its same time of day), previous (the window before), contract, training (of the model)",
        ),
        ("baseline_id", "BIGINT", "the baseline in force; of scores the model's version"),
        (
            "metric",
            "STRING",
            "psi, ks, mean_shift, std_ratio, category_psi, null_pct_change, drifted_columns_pct, schema_added, schema_removed, "
            "schema_retyped",
        ),
        ("value", "DOUBLE", "the metric; of a change of schema the share of records, in per cent"),
        ("p_value", "DOUBLE", "adjusted for the number of tests of the monitoring run (Benjamini and Hochberg)"),
        ("threshold", "DOUBLE", "from this size on it is drift, if it is significant; std_ratio also up to 1 / threshold"),
        ("records", "BIGINT", "rows of the window"),
        ("compared_records", "BIGINT", "rows of what it is compared with"),
        ("status", "STRING", "ok, drift, or unknown where there are too few rows to say"),
        ("is_drift", "BOOLEAN", "NULL where it is unknown"),
        ("severity", "STRING", "warning or critical; NULL without drift"),
        ("detail", "STRING", "of schema_retyped: the type by the contract, the type that is now the most frequent, and a value of it"),
    ),
    statistics_on=("look", "window_start"),
)

ANOMALY_LOGS = Table(
    "anomaly_logs",
    "detector and flagged event or window",
    (
        *_LOOK,
        ("detector", "STRING", "zscore, robust_zscore, iqr, moving_average or gap"),
        (
            "anomaly_type",
            "STRING",
            "outlier (an event, or minutes with a strange mean), spike or missing_pattern (minutes), degradation (a monitoring run)",
        ),
        (
            "series",
            "STRING",
            "what was judged: a column's values, mean(column) of a minute, arrivals a minute, or a figure of the pipeline",
        ),
        _SLICE,
        ("event_id", "STRING", "the event; NULL for minutes and monitoring runs"),
        ("event_time", "TIMESTAMP", "when it happened, or began"),
        ("window_start", "TIMESTAMP", "first minute; NULL for an event"),
        ("window_end", "TIMESTAMP", "end of the last minute; of a silence that is still going on, when monitoring ran"),
        ("observed", "DOUBLE", "the value, or arrivals (of a spike in its strangest minute, of a silence in all of it)"),
        ("expected", "DOUBLE", "what was usual"),
        ("score", "DOUBLE", "how far from usual, in the detector's own unit; of an event below 0 if its value is low"),
        ("threshold", "DOUBLE", "from which score on (without its sign) it is flagged"),
        ("severity", "STRING", "info, warning or critical"),
        ("detected_at", "TIMESTAMP", "when monitoring ran"),
    ),
    statistics_on=("look", "event_time"),
)

MONITOR_STATE = Table(
    "monitor_state",
    "detector, slice and monitoring run",
    (
        ("look", "BIGINT", "number of the monitoring run that wrote it; the next run continues from the newest"),
        ("detector", "STRING", "arrivals, values, drift, schema, scores or clock"),
        ("slice", "STRING", "slice, of values column/slice"),
        ("state", "STRING", "what it remembers, as JSON"),
        ("updated_at", "TIMESTAMP", "when it was written"),
    ),
    statistics_on=("look",),
)

BASELINES = Table(
    "baselines",
    "version of a table's baseline",
    (
        ("baseline_id", "BIGINT", "its number: of silver_events the highest is in force; of gold_anomaly_predictions the model's version"),
        ("table_name", "STRING", "the table"),
        ("name", "STRING", "what it is called"),
        ("window_minutes", "INT", "length of its windows"),
        ("windows", "ARRAY<TIMESTAMP>", "when each of its windows begins"),
        ("slices", "ARRAY<STRING>", "the slices that are judged separately"),
        ("edges", "MAP<STRING, ARRAY<DOUBLE>>", "number -> edges of its bins, frozen"),
        ("scales", "MAP<STRING, DOUBLE>", "skewed number -> s: detectors see asinh(value / s)"),
        ("reference", "STRING", "what its windows held, by time of day, slice and column, as JSON"),
        ("created_at", "TIMESTAMP", "when it was made"),
        ("look", "BIGINT", "number of the monitoring run that made it; NULL: a command made it"),
        ("run_id", "STRING", "the job run that made it"),
    ),
)

BENCHMARK_LOGS = Table(
    "benchmark_logs",
    "timed step",
    (
        ("run_time", "TIMESTAMP", "when the step began"),
        ("task", "STRING", "the step, such as silver_write"),
        ("elapsed_seconds", "DOUBLE", "how long it took"),
        ("records", "BIGINT", "rows that it wrote, monitored or trained on"),
        ("records_per_second", "DOUBLE", "records / elapsed_seconds"),
        ("run_id", "STRING", "the job run"),
    ),
)

CLUSTER_LOGS = Table(
    "cluster_logs",
    "task run",
    (
        ("task_name", "STRING", "the job's task"),
        ("cluster_name", "STRING", "the cluster, serverless, or this machine"),
        ("start_time", "TIMESTAMP", "when the task began"),
        ("end_time", "TIMESTAMP", "when it ended"),
        ("notes", "STRING", "how it ended, and what is worth knowing"),
        ("node_type", "STRING", "the kind of machine"),
        ("workers", "INT", "how many workers when the cluster started; 0 for a single machine, and for serverless"),
        ("run_id", "STRING", "the job run"),
        ("price_per_hour", "DOUBLE", "of the whole cluster, by config/prices.yml; NULL: notes say why it is not known"),
        ("cost", "DOUBLE", "price_per_hour for the time of the task; tasks at once share a cluster: queries/run_cost.sql has the run's"),
        ("currency", "STRING", "of both, by config/prices.yml"),
    ),
)

ALERT_OUTBOX = Table(
    "alert_outbox",
    "alert and channel",
    (
        ("alert_id", "STRING", "follows from the finding and the channel: deriving it twice adds nothing"),
        ("fingerprint", "STRING", "what the alert is about, the same each time it comes"),
        ("anomaly_type", "STRING", "kind of finding, as config/alert_rules.yml calls it"),
        ("severity", "STRING", "info, warning or critical"),
        ("event_time", "TIMESTAMP", "when what it reports began"),
        ("message", "STRING", "what happened"),
        ("status", "STRING", "PENDING, SENT, DEAD (it could not be delivered) or MUTED (it was not to be sent); reason says why"),
        ("attempts", "INT", "how many deliveries were tried"),
        ("next_attempt_at", "TIMESTAMP", "the next delivery is not tried before"),
        ("sent_at", "TIMESTAMP", "when it was delivered"),
        ("created_at", "TIMESTAMP", "when it was derived"),
        ("run_id", "STRING", "the job run that derived it"),
        ("rule", "STRING", "the rule that decided"),
        ("channel", "STRING", "email or webhook"),
        ("recipients", "ARRAY<STRING>", "who gets the mail; empty: SMTP_TO"),
        ("table_name", "STRING", "the table that it is about"),
        ("subject", "STRING", "the column, field, series, metric or tasks"),
        ("findings", "BIGINT", "how many rows of the monitoring run report it"),
        ("metric", "STRING", "the metric of drift, or the detector, of the worst of them"),
        ("observed", "DOUBLE", "what it saw"),
        ("expected", "DOUBLE", "what was usual"),
        ("score", "DOUBLE", "how far from usual, in the detector's own unit"),
        ("threshold", "DOUBLE", "from which score on it is a finding or, without a score, from which value on"),
        ("query", "STRING", "SQL that shows these rows"),
        ("link", "STRING", "the run that found it"),
        ("found_at", "TIMESTAMP", "run_time of the monitoring run in monitor_logs; NULL if it reports a failed job run"),
        ("is_recovery", "BOOLEAN", "it reports that something is over"),
        ("is_ongoing", "BOOLEAN", "it was still going on: its end will be reported"),
        ("message_id", "STRING", "of the mail that reports it; alerts with the same id are in one mail"),
        ("reason", "STRING", "why it is DEAD or MUTED, or what the last attempt ended with"),
    ),
)

ALERT_SILENCES = Table(
    "alert_silences",
    "order to be silent",
    (
        ("rule", "STRING", "the rule that is silent"),
        ("until", "TIMESTAMP", "how long; the newest order for a rule counts"),
        ("created_at", "TIMESTAMP", "when it was given"),
        ("run_id", "STRING", "the job run that wrote it"),
    ),
)


PLACES = ("silver_events", "quarantined_events", "duplicate_events")
"""Every record of bronze ends in exactly one of them."""


def record_tables(contract: Contract) -> list[Table]:
    """Bronze, and the three tables in exactly one of which each of its records ends."""
    return [bronze_events(contract), silver_events(contract), QUARANTINED_EVENTS, DUPLICATE_EVENTS]


def all_tables(contract: Contract) -> list[Table]:
    """Every table of the pipeline."""
    return [
        *record_tables(contract),
        gold_anomaly_predictions(contract),
        MONITOR_LOGS,
        PROFILE_METRICS,
        DRIFT_METRICS,
        ANOMALY_LOGS,
        MONITOR_STATE,
        BASELINES,
        BENCHMARK_LOGS,
        CLUSTER_LOGS,
        ALERT_OUTBOX,
        ALERT_SILENCES,
    ]


def create_missing(spark: SparkSession, settings: Settings, tables: Iterable[Table]) -> set[str]:
    """Create each table that is not there yet, and add the columns that an older one lacks (a field new in the contract).

    Returns the names of those that were not there: they are empty.

    Raises `PipelineError` if a column is there with another type.
    """
    if not spark.catalog.databaseExists(f"`{settings.catalog}`.`{settings.schema}`"):
        spark.sql(f"CREATE SCHEMA IF NOT EXISTS `{settings.catalog}`.`{settings.schema}`")
    return set(filter(None, at_once(*(partial(_create_if_missing, spark, settings.table(table.name), table) for table in tables))))


def _create_if_missing(spark: SparkSession, full_name: str, table: Table) -> str | None:
    if spark.catalog.tableExists(full_name):
        _add_columns(spark, full_name, table)
        return None
    spark.sql(_create_statement(full_name, table))
    return table.name


def append_rows(spark: SparkSession, settings: Settings, table: Table, rows: list[dict[str, Any]]) -> None:
    """Append a few rows (dicts of column → value; a column left out is NULL) to a log table, creating it if need be."""
    create_missing(spark, settings, [table])
    # Into one file: of two rows Spark would make two.
    few_rows(spark, table, rows).coalesce(1).write.format("delta").mode("append").saveAsTable(settings.table(table.name))


def few_rows(spark: SparkSession, table: Table, rows: list[dict[str, Any]]) -> DataFrame:
    """Dicts of column → value as rows of a table; a column left out is NULL."""
    schema = cast(StructType, StructType.fromDDL(", ".join(f"`{name}` {kind}" for name, kind, _ in table.columns)))
    # From Arrow, Spark has the rows at once; from Python objects it would run a job to read them, twice the time of the commit.
    return spark.createDataFrame(pa.Table.from_pylist(rows, to_arrow_schema(schema)), schema)


def append(settings: Settings, name: str, rows: DataFrame) -> int:
    """Append `rows` to a table in one commit; returns how many there were."""
    # Counted while they are written: to ask the table afterwards would make Delta read its log anew.
    written = Observation()
    counted = rows.observe(written, F.count(F.lit(1)).alias("rows"))
    counted.write.format("delta").mode("append").saveAsTable(settings.table(name))
    return int(written.get["rows"])


def replace(settings: Settings, name: str, rows: DataFrame, where: str) -> None:
    """Put `rows`, which may come from the table itself, in the place of those that keep the condition `where`, in one commit."""
    rows.write.format("delta").mode("overwrite").option("replaceWhere", where).saveAsTable(settings.table(name))


def newest_version(spark: SparkSession, settings: Settings, name: str) -> int:
    """The version of a Delta table as it is now, by which it can be read later."""
    return int(spark.sql(f"DESCRIBE HISTORY {settings.table(name)} LIMIT 1").collect()[0]["version"])


def row_count(spark: SparkSession, settings: Settings, name: str) -> int:
    """How many rows a table has; Delta answers from its log without reading a file."""
    return spark.table(settings.table(name)).count()


def _create_statement(full_name: str, table: Table) -> str:
    columns = ", ".join(f"`{name}` {kind} COMMENT {sql_text(comment)}" for name, kind, comment in table.columns)
    listed = _listed(table.properties)
    partitioned = f" PARTITIONED BY (`{table.partition_by}`)" if table.partition_by else ""
    return (
        f"CREATE TABLE IF NOT EXISTS {full_name} ({columns}) USING DELTA{partitioned} "
        f"COMMENT {sql_text(f'One row per {table.grain}.')} TBLPROPERTIES ({listed})"
    )


def keep_properties(spark: SparkSession, settings: Settings, table: Table) -> None:
    """Set the properties that a table lacks which an earlier version of this package made."""
    name = settings.table(table.name)
    held = {row["key"]: row["value"] for row in spark.sql(f"SHOW TBLPROPERTIES {name}").collect()}
    lacking = {key: value for key, value in table.properties.items() if key not in held}
    if lacking:
        spark.sql(f"ALTER TABLE {name} SET TBLPROPERTIES ({_listed(lacking)})")


def _listed(properties: dict[str, str]) -> str:
    return ", ".join(f"{sql_text(key)} = {sql_text(value)}" for key, value in properties.items())


def _add_columns(spark: SparkSession, full_name: str, table: Table) -> None:
    held = {f.name: f.dataType.simpleString() for f in spark.table(full_name).schema.fields}
    as_held = {name.lower(): name for name in held}
    missing = [(name, kind, comment) for name, kind, comment in table.columns if name not in held]
    for name, _, _ in missing:
        if name.lower() in as_held:
            raise PipelineError(
                f"{full_name} has the column {as_held[name.lower()]}, and Delta ignores the case of names: give the field {name} of the "
                "event contract the name of the column, or a different one."
            )
    for name, kind, _ in table.columns:
        wanted = kind.lower().replace(" ", "")
        if name in held and held[name] != wanted:
            raise PipelineError(
                f"{full_name}: column {name} is {held[name]}, but the event contract now wants {wanted}. "
                "Give the field a new name in the contract, or move the old tables away."
            )
    if missing:
        listed = ", ".join(f"`{name}` {kind} COMMENT {sql_text(comment)}" for name, kind, comment in missing)
        spark.sql(f"ALTER TABLE {full_name} ADD COLUMNS ({listed})")


def sql_text(value: str) -> str:
    """`value` as a text literal of SQL, of characters that are seen; for ${…} Spark would put the value of a variable."""
    escaped = value.replace("\\", "\\\\").replace("'", "\\'").replace("${", "\\u0024{")
    return "'" + "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in escaped) + "'"
