"""`bronze_events` → `silver_events`: valid, typed, one row per event; the rest to quarantine, re-deliveries to `duplicate_events`.

A batch makes three writes: rejected records, duplicates, events. Coordinates that any of the three tables holds already are left out
first, and the events go last and are what the two others left over. So a batch that is run again, after a crash between any two
writes or with a lost checkpoint, adds nothing and calls nothing a duplicate of itself.
"""

import io
import os
from contextlib import redirect_stdout
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from functools import partial, reduce
from pathlib import Path

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from streaming_pipeline import tables
from streaming_pipeline.contract import Contract, load_contract, parse_contract, parse_payload
from streaming_pipeline.coordinates import OffsetRanges, held, leave_out, leave_out_any
from streaming_pipeline.run_log import Step, collect_steps, timed_step
from streaming_pipeline.settings import Settings
from streaming_pipeline.streams import run_available_now

PLAN_FILE = "silver_plan.txt"
PLACES = ("silver_events", "quarantined_events", "duplicate_events")
"""Every record of bronze ends in exactly one of them."""
STEPS = ("silver_extent", "quarantine_write", "duplicates_write", "silver_write")
"""The timed steps of a batch."""
_ORDER = ("kafka_timestamp", "topic", "topic_id", "partition", "offset")
"""Which of two records of one batch came first."""


@dataclass(frozen=True)
class SilverCounts:
    """What one run of the stage added: events, rejected records, re-deliveries; and what its steps took."""

    records: int
    quarantined: int
    duplicates: int
    steps: tuple[Step, ...] = field(default=(), repr=False, compare=False)


@dataclass(frozen=True)
class Extent:
    """What a batch touches, to prune the tables it is compared with."""

    offsets: OffsetRanges
    dates: tuple[date, ...]
    """The dates of its valid events."""
    valid: int
    rejected: int
    of_other_contracts: int
    """Rows whose fields bronze parsed by another contract."""

    def near_dates(self, days: int) -> Column:
        """Rows of silver whose date is at most `days` from a date of the batch."""
        near = {day + timedelta(days=shift) for day in self.dates for shift in range(-days, days + 1)}
        return F.col("event_date").isin(sorted(near))


def judge(bronze: DataFrame, contract: Contract) -> DataFrame:
    """Bronze rows → the same records with the contract's fields typed, `event_date`, and `reasons` (NULL for a valid row)."""
    return contract.judge(bronze).select(
        *contract.field_names,
        F.to_date(f"`{contract.event_time_field}`").alias("event_date"),
        *tables.COORDINATE_NAMES,
        "kafka_timestamp",
        "raw_payload",
        F.col("contract_fingerprint").alias("arrived_under"),
        "reasons",
    )


def extent(judged: DataFrame, contract: Contract) -> Extent:
    """Look once at a batch of judged rows; an empty batch has no offsets."""
    is_valid = F.col("reasons").isNull()
    rows = (
        judged.groupBy("topic_id", "partition")
        .agg(
            F.min("offset").alias("first"),
            F.max("offset").alias("last"),
            F.collect_set(F.when(is_valid, F.col("event_date"))).alias("dates"),
            F.count(F.when(is_valid, 1)).alias("valid"),
            F.count(F.when(~is_valid, 1)).alias("rejected"),
            F.count(F.when(F.col("arrived_under") != contract.fingerprint, 1)).alias("of_other_contracts"),
        )
        .collect()
    )
    return Extent(
        offsets=OffsetRanges.from_rows(rows),
        dates=tuple(sorted({day for row in rows for day in row["dates"]})),
        valid=sum(row["valid"] for row in rows),
        rejected=sum(row["rejected"] for row in rows),
        of_other_contracts=sum(row["of_other_contracts"] for row in rows),
    )


def rejected(judged: DataFrame, contract: Contract) -> DataFrame:
    """Judged rows → rows of `quarantined_events`."""
    return judged.where("reasons IS NOT NULL").select(
        *tables.COORDINATE_NAMES,
        "kafka_timestamp",
        "raw_payload",
        F.lit("silver").alias("stage"),
        "reasons",
        F.lit(contract.fingerprint).alias("contract_fingerprint"),
        F.current_timestamp().alias("quarantined_at"),
        F.lit(None).cast("timestamp").alias("resolved_at"),
    )


def repetitions(valid: DataFrame, silver: DataFrame, contract: Contract, window_days: int) -> DataFrame:
    """Valid rows that repeat an event → rows of `duplicate_events`.

    A row repeats an event if `silver`, or an earlier row of the batch that is no repetition itself, has its id within
    `window_days` of its date. `silver` must not hold rows of `valid` themselves.

    Only an id's hash is counted over the whole batch; ids, dates and coordinates are looked at where a hash came more than once.
    """
    columns = ["event_date", *_ORDER]
    id_column = F.col(f"`{contract.id_field}`").alias("event_id")
    arriving = valid.select(id_column, *columns, F.lit(1).alias("arriving"))
    held = silver.select(id_column, *columns, F.lit(0).alias("arriving"))
    every = arriving.unionByName(held).withColumn("id_hash", F.xxhash64("event_id"))
    repeated_hashes = every.groupBy("id_hash").agg(F.count(F.lit(1)).alias("rows")).where("rows > 1").select("id_hash")
    same_id = (
        every.join(repeated_hashes, on="id_hash", how="left_semi")
        .groupBy("event_id")
        .agg(F.array_sort(F.collect_list(F.struct("arriving", *_ORDER, "event_date"))).alias("rows"))
    )
    return same_id.select("event_id", F.explode(_repeats(F.col("rows"), window_days)).alias("row")).select(
        *[F.col(f"row.{name}").alias(name) for name, _, _ in tables.COORDINATES],
        "event_id",
        F.current_timestamp().alias("processed_at"),
    )


def _repeats(rows: Column, window_days: int) -> Column:
    """Of one id's rows in order (those of silver first), the arriving ones that lie within `window_days` of a row kept before."""

    def keep_or_repeat(state: Column, row: Column) -> Column:
        near = F.exists(state["kept"], lambda day: F.abs(F.date_diff(day, row["event_date"])) <= window_days)
        repeats = (row["arriving"] == 1) & near
        return F.struct(
            F.when(repeats, state["kept"]).otherwise(F.array_append(state["kept"], row["event_date"])).alias("kept"),
            F.when(repeats, F.array_append(state["repeats"], row)).otherwise(state["repeats"]).alias("repeats"),
        )

    none = F.filter(rows, lambda row: F.lit(False))
    start = F.struct(F.transform(none, lambda row: row["event_date"]).alias("kept"), none.alias("repeats"))
    return F.aggregate(rows, start, keep_or_repeat, lambda state: state["repeats"])


def events(valid: DataFrame, contract: Contract) -> DataFrame:
    """Valid rows that repeat nothing → rows of `silver_events`."""
    return valid.select(
        *contract.field_names,
        "event_date",
        *tables.COORDINATE_NAMES,
        "kafka_timestamp",
        F.lit(contract.fingerprint).alias("contract_fingerprint"),
        F.current_timestamp().alias("processed_at"),
    )


def write_batch(bronze: DataFrame, batch_id: int, settings: Settings, contract_text: str, checkpoint: str) -> None:
    """Judge one micro-batch of bronze and write it to the three tables."""
    spark = bronze.sparkSession
    contract = parse_contract(pinned_contract(checkpoint, batch_id, contract_text))
    judged = judge(bronze, contract)
    with timed_step(settings.run_dir, "silver_extent") as step:
        batch = extent(judged, contract)
        if batch.of_other_contracts:
            # They arrived under another contract, which may have lacked a field or named it otherwise.
            judged = judge(parse_payload(bronze.drop(*contract.field_names, "parse_error"), contract, "raw_payload"), contract)
            batch = extent(judged, contract)
        step.records = batch.valid + batch.rejected

    table = lambda name: spark.table(settings.table(name))  # noqa: E731
    placed = reduce(DataFrame.unionByName, [held(table(name), batch.offsets) for name in PLACES])
    judged = leave_out_any(judged, placed)
    if batch.rejected:
        with timed_step(settings.run_dir, "quarantine_write") as step:
            step.records = tables.append(settings, "quarantined_events", rejected(judged, contract))
    if batch.valid:
        valid = judged.where("reasons IS NULL")
        near = table("silver_events").where(batch.near_dates(settings.dedupe_window_days))
        with timed_step(settings.run_dir, "duplicates_write") as step:
            step.records = tables.append(settings, "duplicate_events", repetitions(valid, near, contract, settings.dedupe_window_days))
        deduped = events(leave_out(valid, held(table("duplicate_events"), batch.offsets)), contract)
        _keep_plan(deduped, settings.run_dir)
        with timed_step(settings.run_dir, "silver_write") as step:
            step.records = tables.append(settings, "silver_events", deduped)


def cleanse_bronze_to_silver(spark: SparkSession, settings: Settings) -> SilverCounts:
    """Take what is new in bronze through the contract's rules; returns what was added."""
    contract = load_contract(settings.contract_path)
    tables.create_missing(spark, settings, tables.record_tables(contract))
    checkpoint = settings.checkpoint("silver")
    # Without the secrets: what a batch closes over travels to where it runs.
    write = partial(write_batch, settings=replace(settings, secrets={}), contract_text=contract.text, checkpoint=checkpoint)
    source = spark.readStream.option("maxFilesPerTrigger", 1000).table(settings.table("bronze_events"))
    run_available_now(source.writeStream.foreachBatch(write), "silver", checkpoint)
    steps = collect_steps(settings.run_dir, STEPS)
    written = {task: sum(step.records or 0 for step in steps if step.task == task) for task in STEPS}
    return SilverCounts(written["silver_write"], written["quarantine_write"], written["duplicates_write"], steps)


def pinned_contract(checkpoint: str, batch_id: int, text: str) -> str:
    """The contract of a batch: `text`, unless an earlier attempt at the batch was judged by another.

    It is kept with the checkpoint before the batch's first write, since a contract deployed between two attempts would
    otherwise put one record into two tables.
    """
    folder = Path(checkpoint, "contracts")
    pin = folder / f"{batch_id}.yml"
    if pin.exists():
        return pin.read_text(encoding="utf-8")
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    half = folder / f"{batch_id}.half"
    half.write_text(text, encoding="utf-8")
    os.replace(half, pin)
    return text


def _keep_plan(rows: DataFrame, run_dir: str) -> None:
    """Keep the formatted physical plan of `rows` with the run."""
    plan = io.StringIO()
    with redirect_stdout(plan):
        rows.explain("formatted")
    folder = Path(run_dir)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / PLAN_FILE).write_text(plan.getvalue(), encoding="utf-8")
