"""What a contract would make of a file's lines, before anything is produced: judged in Spark by the very rules of bronze."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from streaming_pipeline.core.contract import Contract
from streaming_pipeline.core.errors import UsageError
from streaming_pipeline.core.rules import as_type, judge
from streaming_pipeline.core.wording import plural
from streaming_pipeline.events.producer import lines_of

_CHUNK = 8_000_000
_SHOWN = 60
_MOST_UNKNOWN = 10
_LINES = pa.schema([("line", pa.int64()), ("raw_payload", pa.binary())])


@dataclass(frozen=True)
class Rejection:
    """One reason to reject lines, how many it rejects, and one of them with what is wrong in it."""

    reason: str
    lines: int
    line: int
    value: str


@dataclass(frozen=True)
class Checked:
    """What became of the lines of a file."""

    lines: int
    rejected: int
    rejections: tuple[Rejection, ...]
    repeats: int
    """Valid lines with the id of another one before them."""
    repeated: tuple[str, int, int] | None
    """Such an id, and two of its lines."""
    times: tuple[datetime, datetime] | None
    """The least and the greatest event time of valid lines."""
    unknown: tuple[tuple[str, int], ...]
    """Fields that the contract lacks, and how many lines have them."""


def check_file(spark: SparkSession, contract: Contract, file: BinaryIO, name: str) -> Checked:
    """Judge each line of `file`, called `name` in messages; blank ones are left out, as `produce --file` does. Now is Kafka's clock.

    However large the file, little of it is in memory at a time: its lines and what becomes of them go through a folder in the system's
    temporary one. Raises `UsageError` for a file without lines, and for a line that is too long for a record.
    """
    with tempfile.TemporaryDirectory(prefix="contract-check-") as folder:
        lines, judged = Path(folder, "lines.parquet"), str(Path(folder, "judged"))
        with pq.ParquetWriter(lines, _LINES) as writer:
            for chunk in _chunks(file, name):
                writer.write_table(chunk)
        received = spark.read.parquet(str(lines)).withColumn("kafka_timestamp", F.current_timestamp())
        # Once, since each question would parse and judge all lines anew.
        judge(received, contract).write.parquet(judged)
        return _summary(spark.read.parquet(judged), contract)


def _chunks(file: BinaryIO, name: str) -> Iterator[pa.Table]:
    numbers, payloads, size, number = [], [], 0, 0
    for number, line in enumerate(lines_of(file, name), start=1):
        payload = line.rstrip(b"\r\n")
        if payload.strip():
            numbers.append(number)
            payloads.append(payload)
            size += len(payload) + 100
        if size > _CHUNK:
            yield pa.table([numbers, payloads], schema=_LINES)
            numbers, payloads, size = [], [], 0
    if not number:
        raise UsageError(f"--file {name} is empty: write one JSON object a line.")
    yield pa.table([numbers, payloads], schema=_LINES)


def _summary(judged: DataFrame, contract: Contract) -> Checked:
    typed = {field.name: as_type(field) for field in contract.fields}
    valid = judged.where("reasons IS NULL")
    counts = judged.agg(F.count(F.lit(1)), F.count("reasons")).first()
    times = valid.agg(F.min(typed[contract.event_time_field]), F.max(typed[contract.event_time_field])).first()
    reasons = (
        judged.select(F.explode("reasons").alias("reason"), "line")
        .groupBy("reason")
        .agg(F.count(F.lit(1)).alias("lines"), F.min("line").alias("line"))
        .orderBy(F.desc("lines"), "reason")
        .collect()
    )
    ids = valid.groupBy(typed[contract.id_field].cast("string").alias("id")).agg(
        F.count(F.lit(1)).alias("lines"), F.min("line").alias("first"), F.max("line").alias("last")
    )
    repeats = ids.where("lines > 1").agg(F.sum(F.col("lines") - 1), F.min(F.struct("first", "last", "id"))).first()
    unknown = judged.select(F.explode("unknown_fields").alias("name")).groupBy("name").count().orderBy(F.desc("count"), "name")
    # Cut, as a value may be as long as a line.
    texts = [F.left(F.col(f"`{field.name}`"), F.lit(_SHOWN + 1)).alias(field.name) for field in contract.fields]
    examples = judged.where(F.col("line").isin([row["line"] for row in reasons])).select(
        "line", F.substring("raw_payload", 1, 4 * _SHOWN).alias(""), *texts
    )
    by_line = {row["line"]: row.asDict() for row in examples.collect()} if reasons else {}
    return Checked(
        lines=counts[0],
        rejected=counts[1],
        rejections=tuple(
            Rejection(row["reason"], row["lines"], row["line"], _shown(by_line[row["line"]][row["reason"].partition(":")[2]]))
            for row in reasons
        ),
        repeats=repeats[0] or 0,
        repeated=repeats[1] and (_shown(repeats[1]["id"]), repeats[1]["first"], repeats[1]["last"]),
        times=None if times[0] is None else tuple(times),
        unknown=tuple((_shown(row["name"]), row["count"]) for row in unknown.take(_MOST_UNKNOWN)),
    )


def _shown(value: bytes | bytearray | str | None) -> str:
    """A value as a terminal may show it: control characters escaped, and not too long; empty if there is none."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else bytes(value).decode(errors="replace")
    return repr(text[:_SHOWN]) + ("…" if len(text) > _SHOWN else "")


def report(checked: Checked, contract: Contract) -> Iterator[str]:
    """What was found, line by line."""
    yield f"{plural(checked.lines, 'line')}: {checked.lines - checked.rejected:,} valid, {checked.rejected:,} rejected"
    wide = max((len(found.reason) for found in checked.rejections), default=0)
    for found in checked.rejections:
        value = f": {found.value}" if found.value else ""
        yield f"  {found.reason:{wide}}  {found.lines:>9,}  such as line {found.line:,}{value}"
    if checked.lines and checked.rejected == checked.lines:
        yield "No line is valid: is this the right contract?"
    if checked.repeated:
        event_id, first, last = checked.repeated
        yield (
            f"{plural(checked.repeats, 'line repeats', 'lines repeat')} the {contract.id_field} of an earlier one, such as {event_id} in "
            f"lines {first:,} and {last:,}: re-deliveries, if their dates are at most dedupe_window_days apart"
        )
    if checked.times:
        yield f"{contract.event_time_field} from {checked.times[0]:%Y-%m-%d %H:%M:%S} to {checked.times[1]:%Y-%m-%d %H:%M:%S} UTC"
    if checked.unknown:
        fields = ", ".join(f"{name} ({lines:,})" for name, lines in checked.unknown)
        yield f"Fields that the contract lacks (kept in bronze only): {fields}"
