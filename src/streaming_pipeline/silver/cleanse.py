"""`bronze_events` → `silver_events`: valid, typed, one row per event; the rest to quarantine, re-deliveries to `duplicate_events`.

A batch makes three writes: rejected records, duplicates, events. Records that any of the three tables holds already are left out
first, and the events go last and are what the two others left over. So a batch that is run again, after a crash between any two
writes or with a lost checkpoint, adds nothing and calls nothing a duplicate of itself.

The stream itself carries keys alone: they say which rows of bronze a batch is. Each step then reads of these the columns it needs,
where the frame that a stream hands to `foreachBatch` would be read whole by each.
"""

import io
import json
import shutil
from collections.abc import Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass, field, replace
from datetime import date
from functools import partial, reduce
from pathlib import Path
from typing import Any

from pyspark.sql import Column, DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from streaming_pipeline.core import tables
from streaming_pipeline.core.at_once import at_once
from streaming_pipeline.core.contract import Contract, Field, load_contract, parse_contract
from streaming_pipeline.core.coordinates import KEY, covering, leave_out, lies_within
from streaming_pipeline.core.errors import PipelineError, UsageError
from streaming_pipeline.core.json_files import Damaged, read_json
from streaming_pipeline.core.rules import as_type, check_patterns, content_hash, judge
from streaming_pipeline.core.run_log import Step, collect_steps, timed_step
from streaming_pipeline.core.settings import Settings
from streaming_pipeline.core.streams import take_new_keys
from streaming_pipeline.core.wording import plural

PLAN_FILE = "silver_plan.txt"
STEPS = ("silver_extent", "quarantine_write", "duplicates_write", "silver_write")
"""The timed steps of a batch."""
_MOST_AT_HAND = 50_000
"""So many repetitions of a batch are kept in memory."""
_SPAN = 100_000
"""Offsets in about one file of bronze."""
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
    """Valid rows of bronze that repeat an event → their keys, each with the `event_id` and the key of the event (`kept`).

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
    judged = same_id.withColumn("kept", _kept(F.col("firsts"), window_days))
    repeated = judged.where((F.col("arriving") == 1) & ~F.array_contains("kept", F.col("row")))
    # There is one: else the row itself would have been kept.
    first_near = F.get(F.filter("kept", lambda kept: _is_near(kept, F.col("row"), window_days)), F.lit(0))
    return repeated.select(*tables.COORDINATE_NAMES, "event_id", F.struct(*[first_near[name].alias(name) for name in KEY]).alias("kept"))


def _kept(rows: Column, window_days: int) -> Column:
    """Of one id's rows in order (those of silver first): those of silver, and the arriving ones that lie within `window_days` of none
    kept before."""

    def keep_or_not(kept: Column, row: Column) -> Column:
        near = F.exists(kept, lambda other: _is_near(other, row, window_days))
        return F.when((row["arriving"] == 1) & near, kept).otherwise(F.array_append(kept, row))

    return F.aggregate(rows, F.filter(rows, lambda row: F.lit(False)), keep_or_not)


def _is_near(row: Column, other: Column, window_days: int) -> Column:
    return F.abs(F.date_diff(row["event_date"], other["event_date"])) <= window_days


def compared(repeats: DataFrame, bronze: DataFrame, contract: Contract, are_few: bool) -> DataFrame:
    """What `repetitions` found, of which `bronze` has the records → rows of `duplicate_events`.

    Both records, that of the repetition and that of the event kept, are read again as this contract types them: other white space, another
    order of fields, 7 for "7", or a field that only a later contract has make no other content.
    """
    keys = repeats.select(*KEY).unionByName(repeats.select("kept.*"))
    # An event may have come long before its repetition: not all that lies between the two is to be read.
    parts = keys.groupBy("topic_id", "partition", F.floor(F.col("offset") / _SPAN))
    spans = parts.agg(F.min("offset").alias("first"), F.max("offset").alias("last")).select("topic_id", "partition", "first", "last")
    records = bronze.where(lies_within(map(tuple, spans.collect())))
    if are_few:  # otherwise they are most of what is read
        records = records.join(keys, on=KEY, how="left_semi")
    hashed = judged_again(records, contract).select(*KEY, content_hash(contract).alias("payload_hash"))
    of_kept = hashed.select(F.struct(*KEY).alias("kept"), F.col("payload_hash").alias("kept_hash"))
    return (
        repeats.join(hashed, on=KEY, how="left")
        .join(of_kept, on="kept", how="left")
        .select(
            *tables.COORDINATE_NAMES,
            "event_id",
            (F.col("payload_hash") != F.col("kept_hash")).alias("is_conflict"),
            "payload_hash",
            F.current_timestamp().alias("processed_at"),
        )
    )


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
    damage = None
    try:
        pinned = pinned_contract(checkpoint, batch_id)
        contract = parse_contract(pinned) if pinned else contract
    except (Damaged, UsageError) as error:
        damage = str(error)
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
    if damage and not is_first_time:
        _check_lost_pin(spark, settings, within, contract, _pin(checkpoint, batch_id), damage)
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
        duplicates = step.records = _write_repeats(settings, contract, repeats)
    held = valid.sparkSession.table(settings.table("duplicate_events")).where(within)
    deduped = events(leave_out(valid, held), contract)
    _keep_plan(deduped, Path(settings.run_dir, PLAN_FILE))
    with timed_step(settings.run_dir, "silver_write") as step:
        step.records = tables.append(settings, "silver_events", deduped)
    return duplicates, step.records


def _write_repeats(settings: Settings, contract: Contract, repeats: DataFrame) -> int:
    """Write what `repetitions` found; returns how many."""
    spark = repeats.sparkSession
    # Usually none, or few: then they are found once, where each step would find them anew.
    found = repeats.limit(_MOST_AT_HAND + 1).toArrow()
    if not found.num_rows:
        return 0
    are_few = found.num_rows <= _MOST_AT_HAND
    rows = spark.createDataFrame(found, repeats.schema) if are_few else repeats
    bronze = spark.table(settings.table("bronze_events"))
    return tables.append(settings, "duplicate_events", compared(rows, bronze, contract, are_few))


def cleanse_bronze_to_silver(spark: SparkSession, settings: Settings) -> SilverCounts:
    """Take what is new in bronze through the contract's rules; returns what was added."""
    contract = load_contract(settings.contract_path)
    check_patterns(spark, contract, settings.contract_path)
    tables.create_missing(spark, settings, tables.record_tables(contract))
    checkpoint = settings.checkpoint("silver")
    Path(settings.run_dir, PLAN_FILE).unlink(missing_ok=True)  # of an earlier run by hand, which all have one name
    # Without the secrets: what a batch closes over travels to where it runs.
    write = partial(write_batch, settings=replace(settings, secrets={}), contract=contract, checkpoint=checkpoint)
    note = take_new_keys(spark, settings.table("bronze_events"), settings.table("silver_events"), write, "silver", checkpoint)
    steps = collect_steps(settings.run_dir, STEPS)
    written = {task: sum(step.records or 0 for step in steps if step.task == task) for task in STEPS}
    counts = [written[task] for task in ("silver_write", "quarantine_write", "duplicates_write")]
    events, rejected, repeated = counts
    said = f"{plural(events, 'event')}, {rejected:,} rejected, {repeated:,} repeated"
    return SilverCounts(*counts, "; ".join(filter(None, (said, note))), steps)


def pinned_contract(checkpoint: str, batch_id: int) -> str | None:
    """The contract by which an earlier attempt at the batch was judged, if one has come that far. Raises `Damaged`."""
    try:
        text = read_json(_pin(checkpoint, batch_id))
    except FileNotFoundError:
        return None
    if not isinstance(text, str):
        raise Damaged("it is no contract")
    return text


def pin_contract(checkpoint: str, batch_id: int, text: str) -> None:
    """Hold later attempts at the batch to this contract: by another, what is a re-delivery already could be one of a rejected event.

    Kept with the checkpoint, before the batch's first write. Written in place: volumes do not know how to rename.
    """
    pin = _pin(checkpoint, batch_id)
    with suppress(Damaged):
        if pinned_contract(checkpoint, batch_id) == text:
            return
    pin.parent.mkdir(parents=True, exist_ok=True)
    for old in pin.parent.iterdir():
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    pin.write_text(json.dumps(text), encoding="utf-8")


def _check_lost_pin(spark: SparkSession, settings: Settings, within: Column, contract: Contract, pin: Path, why: str) -> None:
    """Raise `PipelineError` unless what the tables hold of a batch, whose pin is damaged, was written by this contract."""
    read = lambda name: spark.table(settings.table(name)).where(within).select("contract_fingerprint")  # noqa: E731
    written = {row[0] for row in read("silver_events").unionAll(read("quarantined_events")).distinct().collect()}
    if written != {contract.fingerprint}:
        raise PipelineError(
            f"{pin} is damaged ({why}). It said by which contract its batch was begun. Some records of the batch are placed already, and "
            "the tables do not say that it was by the contract of today. Put the contract of that time into "
            f"{settings.contract_path} and run once, or delete the file: then the rest of the batch is judged by the contract of today."
        )


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
