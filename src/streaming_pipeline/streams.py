"""What every stream shares: it takes what is available now, and ends."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.streaming.readwriter import DataStreamWriter

from streaming_pipeline.coordinates import KEY
from streaming_pipeline.errors import PipelineError

_SPARK_55271 = 'because the return value of "scala.Option.get()" is null'
"""How Spark 4.1's Kafka source fails after the batch that an interrupted run had planned: done and put down, but without numbers to
report. The next start goes on behind it."""

_TABLE_CHANGED = {
    # Java's FileNotFoundException would tell of a full disk as well.
    "FILE_NOT_EXIST|DELTA_FILE_NOT_FOUND": "files that it had not read yet were taken away, as VACUUM does a week after an OPTIMIZE. "
    "Their rows are in other files now",
    "DIFFERENT_DELTA_TABLE_READ": "the table that it reads was dropped and made anew",
}
"""How Spark and Delta tell of a table that is not what a stream has begun to read, and what that means."""


READ_AGAIN = "the checkpoint was gone: all was read again, and what the table holds left out"
"""What a stage says of a stream that begins without its checkpoint and yet has a table with rows."""


def is_new(checkpoint: str) -> bool:
    """Whether a stream with this checkpoint would begin at the beginning."""
    return not _batches(checkpoint, "offsets")


def read_until(checkpoint: str) -> dict[int, int] | None:
    """Where a Kafka stream goes on: for each partition the offset behind the last batch that is done; None without a checkpoint.

    Raises `PipelineError` if Spark's files cannot be read.
    """
    if is_new(checkpoint):
        return None
    done = _batches(checkpoint, "commits")
    # Before the first batch is done: where it was to begin.
    (partitions,) = _last_line(checkpoint, f"offsets/{done[-1]}" if done else "sources/0/0").values()
    return {int(partition): offset for partition, offset in partitions.items()}


def _batches(checkpoint: str, kind: str) -> list[int]:
    folder = Path(checkpoint, kind)
    return sorted(int(entry.name) for entry in folder.iterdir() if entry.name.isdigit()) if folder.is_dir() else []


def _last_line(checkpoint: str, name: str) -> Any:
    """What the last line of one of a checkpoint's files says."""
    file = Path(checkpoint, name)
    try:
        return json.loads(file.read_text(encoding="utf-8", errors="replace").splitlines()[-1])
    except (OSError, ValueError, IndexError):
        raise PipelineError(
            f"The checkpoint's file {file} is missing or damaged: remove the checkpoint folder {checkpoint} and run again. The stream "
            "then goes on behind what its table holds, and adds nothing twice."
        ) from None


def keys_of(spark: SparkSession, table: str) -> DataFrame:
    """A stream of the keys of the rows that are appended to a table.

    A commit that takes rows away or changes them, as when a person's data must be deleted, is passed over instead of ending the
    stream for good; should it add rows too, monitoring finds them unaccounted for.
    """
    return spark.readStream.option("skipChangeCommits", "true").table(table).select(*KEY)


def run_available_now(writer: DataStreamWriter, name: str, checkpoint: str, into: str | None = None) -> None:
    """Run a stream over what is there now, and wait for its end.

    `into` names the table to append to; without it the writer has its own `foreachBatch`. A `PipelineError` of a batch comes out
    as one again, since Spark wraps it in pages of stack; any other failure as Spark tells it.
    """
    if is_new(checkpoint):
        # What is left of a folder without its offsets would make Delta take new batches for old ones, whose numbers they have.
        shutil.rmtree(checkpoint, ignore_errors=True)
    for kind in ("offsets", "commits"):
        for newest in _batches(checkpoint, kind)[-1:]:
            _last_line(checkpoint, f"{kind}/{newest}")
    writer = writer.option("checkpointLocation", checkpoint).trigger(availableNow=True)
    try:
        try:
            _run(writer, into)
        except Exception as error:
            if _SPARK_55271 not in str(error):
                raise
            _run(writer, into)
    except BaseException as error:
        cause = _users_mistake(error)
        for told, what in _TABLE_CHANGED.items():
            if re.search(told, str(error)):
                cause = f"{what}: remove the folder {checkpoint} and run again. All is read anew then, and nothing comes twice."
        if cause:
            raise PipelineError(f"The stream {name} failed: {cause}") from error
        raise


def _run(writer: DataStreamWriter, into: str | None) -> None:
    query = writer.toTable(into) if into else writer.start()
    try:
        query.awaitTermination()
    except BaseException:
        if query.isActive:
            query.stop()
        raise


def _users_mistake(error: BaseException) -> str | None:
    """The message of the `PipelineError` or `UsageError` that Spark tells of, if it was one."""
    for line in str(error).splitlines():
        if line.strip().startswith("streaming_pipeline.errors."):
            return line.split(":", 1)[1].strip()
    return None
