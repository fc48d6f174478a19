"""`bronze_events` → `silver_events`: valid, typed, one row per event; the rest to quarantine, re-deliveries to `duplicate_events`.

A batch makes three writes: rejected records, duplicates, events. Records that any of the three tables holds already are left out
first, and the events go last and are what the two others left over. So a batch that is run again, after a crash between any two
writes or with a lost checkpoint, adds nothing and calls nothing a duplicate of itself.

The stream itself carries keys alone: they say which rows of bronze a batch is. Each step then reads of these the columns it needs,
where the frame that a stream hands to `foreachBatch` would be read whole by each.
"""

import io
import json
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field, replace
from datetime import date
from functools import partial, reduce
from pathlib import Path
from typing import Any

from pyspark.sql import Column, DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from streaming_pipeline import tables
from streaming_pipeline.at_once import at_once
from streaming_pipeline.contract import Contract, Field, load_contract, parse_contract
from streaming_pipeline.coordinates import KEY, covering, leave_out
from streaming_pipeline.rules import as_type, check_patterns, judge
from streaming_pipeline.run_log import Step, collect_steps, timed_step
from streaming_pipeline.settings import Settings
from streaming_pipeline.streams import READ_AGAIN, is_new, keys_of, run_available_now

PLAN_FILE = "silver_plan.txt"
STEPS = ("silver_extent", "quarantine_write", "duplicates_write", "silver_write")
"""The timed steps of a batch."""
_ORDER = ("kafka_timestamp", "topic", "topic_id", "partition", "offset")
"""Which of two records of one batch came first."""


@dataclass(frozen=True)
class SilverCounts:
    """What one run of the stage added: events, rejected records, re-deliveries; what it had to say, and what its steps took."""

    records: int
    quarantined: int
    duplicates: int
    note: str = field(default="", compare=False)
    steps: tuple[Step, ...] = field(default=(), repr=False, compare=False)


@dataclass(frozen=True)
class Extent:
    """What a batch holds: numbers of rows, and of its valid events the dates, and the least and the greatest id."""

    valid: int
    rejected: int
    to_judge: int
    """Rows that bronze judged by another contract, or not at all (a valid row has a date)."""
    dates: tuple[date, ...]
    ids: tuple[Any, Any]

    def near(self, days: int, id_field: Field) -> Column:
        """The rows of silver that a valid event of the batch may repeat: at most `days` from a date of the batch, and between its ids.

        Where ids grow with time, Delta opens by these the files of the last moments alone, and not those of all the day.
        """
        around = {day.toordinal() + shift for day in self.dates for shift in range(-days, days + 1)}
        near = [date.fromordinal(day) for day in sorted(around) if 1 <= day <= date.max.toordinal()]
        # As texts, since PySpark hands on a date of the first thousand years without its zeros.
        is_near = F.col("event_date").isin([F.lit(day.isoformat()).cast("date") for day in near])
        if id_field.logical_type not in ("string", "integer"):
            return is_near
        return is_near & F.col(f"`{id_field.name}`").between(*map(F.lit, self.ids))


def _id_field(contract: Contract) -> Field:
    return next(field for field in contract.fields if field.name == contract.id_field)


def extent(bronze: DataFrame, contract: Contract) -> Extent:
    """Look once at the rows of a batch."""
    event_id = as_type(_id_field(contract))
    rows, ids = at_once(
        lambda: (
            bronze.groupBy("event_date", F.isnull("reasons").alias("is_valid"), "contract_fingerprint")
            .agg(F.count(F.lit(1)).alias("rows"))
            .collect()
        ),
        # By itself, since Spark would sort the rows of all groups to find the least of texts in each.
        lambda: bronze.where("reasons IS NULL").agg(F.min(event_id), F.max(event_id)).first(),
    )
    return Extent(
        valid=sum(row["rows"] for row in rows if row["is_valid"]),
        rejected=sum(row["rows"] for row in rows if not row["is_valid"]),
        to_judge=sum(
            row["rows"]
            for row in rows
            if row["contract_fingerprint"] != contract.fingerprint or (row["is_valid"] and row["event_date"] is None)
        ),
        dates=tuple(sorted({row["event_date"] for row in rows if row["event_date"]})),
        ids=tuple(ids),
    )


def judged_again(bronze: DataFrame, contract: Contract) -> DataFrame:
    """Rows that arrived under another contract, which may have lacked a field or had other rules, as bronze would have them by this."""
    received = bronze.drop(*contract.field_names, "event_date", "reasons", "unknown_fields", "contract_fingerprint")
    judged = judge(received, contract).withColumn("contract_fingerprint", F.lit(contract.fingerprint))
    # A condition on `reasons` must stay above. Spark would write it out down to the payload, which is then parsed twice, in plans of two
    # hundred parsers; past what depends on a row's place, as this does in form, it moves none.
    return judged.withColumn("reasons", F.when(F.monotonically_increasing_id() >= 0, F.col("reasons")))


def rejected(bronze: DataFrame) -> DataFrame:
    """Bronze rows → rows of `quarantined_events`."""
    return bronze.where("reasons IS NOT NULL").select(
        *tables.COORDINATE_NAMES,
        "kafka_timestamp",
        "raw_payload",
        F.lit("silver").alias("stage"),
        "reasons",
        "contract_fingerprint",
        F.current_timestamp().alias("quarantined_at"),
        F.lit(None).cast("timestamp").alias("resolved_at"),
    )


def repetitions(valid: DataFrame, silver: DataFrame, contract: Contract, window_days: int) -> DataFrame:
    """Valid rows of bronze that repeat an event → rows of `duplicate_events`.

    A row repeats an event if `silver`, or an earlier row of the batch that is no repetition itself, has its id within
    `window_days` of its date. `silver` must not hold rows of `valid` themselves.

    Only an id's hash is counted over the whole batch; ids, dates and coordinates are looked at where a hash came more than once. Of
    an id's rows of one date only the first can be kept, so that an id which comes a million times costs no more than a million ids.
    """
    columns = ["event_date", *_ORDER]
    # Typed in both, since "007" and 7 are one whole number.
    id_field = _id_field(contract)
    arriving = valid.select(as_type(id_field).cast("string").alias("event_id"), *columns, F.lit(1).alias("arriving"))
    held = silver.select(F.col(f"`{id_field.name}`").cast("string").alias("event_id"), *columns, F.lit(0).alias("arriving"))
    every = arriving.unionByName(held).withColumn("id_hash", F.xxhash64("event_id"))
    repeated_hashes = every.groupBy("id_hash").agg(F.count(F.lit(1)).alias("rows")).where("rows > 1").select("id_hash")
    same_id = (
        every.join(repeated_hashes, on="id_hash", how="left_semi")
        .withColumn("row", F.struct("arriving", *_ORDER, "event_date"))
        .withColumn("first", F.min("row").over(Window.partitionBy("event_id", "event_date")))
        .withColumn("firsts", F.array_sort(F.collect_set("first").over(Window.partitionBy("event_id"))))
    )
    return same_id.where((F.col("arriving") == 1) & ~F.array_contains(_kept(F.col("firsts"), window_days), F.col("row"))).select(
        *tables.COORDINATE_NAMES, "event_id", F.current_timestamp().alias("processed_at")
    )


def _kept(rows: Column, window_days: int) -> Column:
    """Of one id's rows in order (those of silver first): those of silver, and the arriving ones that lie within `window_days` of none
    kept before."""

    def keep_or_not(kept: Column, row: Column) -> Column:
        near = F.exists(kept, lambda other: F.abs(F.date_diff(other["event_date"], row["event_date"])) <= window_days)
        return F.when((row["arriving"] == 1) & near, kept).otherwise(F.array_append(kept, row))

    return F.aggregate(rows, F.filter(rows, lambda row: F.lit(False)), keep_or_not)


def events(valid: DataFrame, contract: Contract) -> DataFrame:
    """Valid rows of bronze that repeat nothing → rows of `silver_events`."""
    return valid.select(
        *[as_type(field).alias(field.name) for field in contract.fields],
        "event_date",
        *tables.COORDINATE_NAMES,
        "kafka_timestamp",
        "contract_fingerprint",
        F.current_timestamp().alias("processed_at"),
    )


def write_batch(keys: DataFrame, batch_id: int, settings: Settings, contract: Contract, checkpoint: str) -> None:
    """Write one micro-batch of bronze, of which `keys` has the keys, to the three tables."""
    spark = keys.sparkSession
    table = lambda name: spark.table(settings.table(name))  # noqa: E731
    pinned = pinned_contract(checkpoint, batch_id)
    contract = parse_contract(pinned) if pinned else contract
    with timed_step(settings.run_dir, "silver_extent") as step:
        within = covering(keys)
        if within is None:
            return
        bronze = table("bronze_events").where(within)
        batch, is_first_time = at_once(lambda: extent(bronze, contract), lambda: placed(spark, settings, within).isEmpty())
        if batch.to_judge:
            bronze = judged_again(bronze, contract)
            batch = extent(bronze, contract)
        step.records = batch.valid + batch.rejected
    # The contract has now been through all rows: one that Spark cannot work with must not be what later attempts are held to.
    pin_contract(checkpoint, batch_id, contract.text)

    if not is_first_time:
        bronze = leave_out(bronze, placed(spark, settings, within))
    if batch.rejected:
        with timed_step(settings.run_dir, "quarantine_write") as step:
            step.records = tables.append(settings, "quarantined_events", rejected(bronze))
    if batch.valid:
        valid = bronze.where("reasons IS NULL")
        write_valid(settings, contract, valid, repeated(spark, settings, contract, valid, batch), within)


def placed(spark: SparkSession, settings: Settings, within: Column, names: Sequence[str] = tables.PLACES) -> DataFrame:
    """The keys within these offsets that the named tables hold."""
    return reduce(DataFrame.unionByName, [spark.table(settings.table(name)).where(within).select(*KEY) for name in names])


def repeated(spark: SparkSession, settings: Settings, contract: Contract, valid: DataFrame, batch: Extent) -> DataFrame:
    """`repetitions` of the valid rows, whose extent is known, against the dates of silver around theirs."""
    near = spark.table(settings.table("silver_events")).where(batch.near(settings.dedupe_window_days, _id_field(contract)))
    return repetitions(valid, near, contract, settings.dedupe_window_days)


def write_valid(settings: Settings, contract: Contract, valid: DataFrame, repeats: DataFrame, within: Column) -> tuple[int, int]:
    """Write the re-deliveries among the valid rows, and then what they left over as events; returns how many of each."""
    with timed_step(settings.run_dir, "duplicates_write") as step:
        duplicates = step.records = tables.append(settings, "duplicate_events", repeats)
    held = valid.sparkSession.table(settings.table("duplicate_events")).where(within)
    deduped = events(leave_out(valid, held), contract)
    _keep_plan(deduped, Path(settings.run_dir, PLAN_FILE))
    with timed_step(settings.run_dir, "silver_write") as step:
        step.records = tables.append(settings, "silver_events", deduped)
    return duplicates, step.records


def cleanse_bronze_to_silver(spark: SparkSession, settings: Settings) -> SilverCounts:
    """Take what is new in bronze through the contract's rules; returns what was added."""
    contract = load_contract(settings.contract_path)
    check_patterns(spark, contract, settings.contract_path)
    tables.create_missing(spark, settings, tables.record_tables(contract))
    checkpoint = settings.checkpoint("silver")
    Path(settings.run_dir, PLAN_FILE).unlink(missing_ok=True)  # of an earlier run by hand, which all have one name
    # Without the secrets: what a batch closes over travels to where it runs.
    write = partial(write_batch, settings=replace(settings, secrets={}), contract=contract, checkpoint=checkpoint)
    read_again = is_new(checkpoint) and tables.row_count(spark, settings, "silver_events") > 0
    keys = keys_of(spark, settings.table("bronze_events"))
    run_available_now(keys.writeStream.foreachBatch(write), "silver", checkpoint)
    steps = collect_steps(settings.run_dir, STEPS)
    written = {task: sum(step.records or 0 for step in steps if step.task == task) for task in STEPS}
    note = READ_AGAIN if read_again else ""
    return SilverCounts(written["silver_write"], written["quarantine_write"], written["duplicates_write"], note, steps)


def pinned_contract(checkpoint: str, batch_id: int) -> str | None:
    """The contract by which an earlier attempt at the batch was judged, if one has come that far."""
    try:
        return json.loads(_pin(checkpoint, batch_id).read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None  # none, or half of one: then nothing has been written by it yet


def pin_contract(checkpoint: str, batch_id: int, text: str) -> None:
    """Hold later attempts at the batch to this contract: by another, what is a re-delivery already could be one of a rejected event.

    Kept with the checkpoint, before the batch's first write. Written in place: volumes do not know how to rename.
    """
    pin = _pin(checkpoint, batch_id)
    if pinned_contract(checkpoint, batch_id) == text:
        return
    pin.parent.mkdir(parents=True, exist_ok=True)
    for old in pin.parent.iterdir():
        old.unlink()
    pin.write_text(json.dumps(text), encoding="utf-8")


def _pin(checkpoint: str, batch_id: int) -> Path:
    return Path(checkpoint, "contracts", f"{batch_id}.json")


def _keep_plan(rows: DataFrame, file: Path) -> None:
    """Keep the formatted physical plan of `rows` with the run; once, since to plan takes as long as to write a thousand rows."""
    if file.exists():
        return
    plan = io.StringIO()
    with redirect_stdout(plan):
        rows.explain("formatted")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(plan.getvalue(), encoding="utf-8")
