"""What every stream shares: it takes what is available now, and ends."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.streaming.readwriter import DataStreamWriter

from streaming_pipeline.core.coordinates import KEY
from streaming_pipeline.core.errors import PipelineError, damaged_table
from streaming_pipeline.core.json_files import UNREADABLE

_SPARK_55271 = 'because the return value of "scala.Option.get()" is null'
"""How Spark 4.1's Kafka source fails after the batch that an interrupted run had planned: done and put down, but without numbers to
report. The next start goes on behind it."""

_CANNOT_GO_ON = {
    # Java's FileNotFoundException would tell of a full disk as well.
    "FILE_NOT_EXIST|DELTA_FILE_NOT_FOUND": "files that it had not read yet were taken away, as VACUUM does a week after an OPTIMIZE; "
    "their rows are in other files now",
    "DIFFERENT_DELTA_TABLE_READ": "the table that it reads was dropped and recreated",
    "TRAILING_COMMIT_MISSING": "the table that it reads was put back to an earlier state",
    "Could not find any delta files for version|MISSING_FILES_UNEXPECTED_VERSION|LOG_FILE_NOT_FOUND_FOR_STREAMING_SOURCE"
    "|TRUNCATED_TRANSACTION_LOG": "the log of the table that it reads no longer reaches back so far",
    "Checksum error: file:{checkpoint}/|DELTA_INVALID_SOURCE_(?:VERSION|OFFSET_FORMAT)": "a file of its checkpoint was changed",
}
"""How Spark and Delta tell that a stream cannot go on from its checkpoint, and what that means."""

READ_AGAIN = "all was read again, and what the table holds left out"
"""What a stage says of a stream that could not go on from its checkpoint."""

Offsets = dict[int, int]
"""Partition → the next offset to read."""


@dataclass(frozen=True)
class Progress:
    """How far a stream has come, by the files of its checkpoint."""

    checkpoint: str
    batch: int | None
    """The last batch that is done; None before the first."""

    def kafka_offsets(self, batches_before: int = 0) -> Offsets:
        """Where a Kafka stream goes on behind the last batch that is done, or so many batches before that."""
        behind = -1 if self.batch is None else self.batch - batches_before
        # Before the first batch is done: where it was to begin.
        name = f"offsets/{behind}" if behind >= 0 else "sources/0/0"
        try:
            (partitions,) = _last_line(self.checkpoint, name).values()
            offsets = {int(partition): offset for partition, offset in partitions.items()}
        except UNREADABLE:
            offsets = {}
        if not offsets or not all(type(offset) is int and offset >= 0 for offset in offsets.values()):
            raise DamagedCheckpoint(Path(self.checkpoint, name))
        return offsets


class CheckpointError(PipelineError):
    """A stream cannot go on from its checkpoint; without it, it can."""


class DamagedCheckpoint(CheckpointError):
    """A file of a checkpoint is missing or cannot be read, so that Spark would not go on where the stream ended."""

    def __init__(self, file: Path | str) -> None:
        super().__init__(f"the checkpoint's file {file} was missing or damaged")


def progress(checkpoint: str) -> Progress | None:
    """How far the stream has come; None if it has never begun, or nothing of its checkpoint is left.

    Raises `DamagedCheckpoint` unless each file is there that Spark needs to go on exactly behind the last batch that is done.
    """
    planned, done = _batches(checkpoint, "offsets"), _batches(checkpoint, "commits")
    if not planned and not done:
        return None
    newest, batch = max(planned, default=-1), max(done, default=None)
    if newest not in (behind := {0} if batch is None else {batch, batch + 1}):
        # Spark would take the batches between for done, or fail.
        kind, missing = ("commits", newest - 1) if newest > max(behind) else ("offsets", max(done, default=0))
        raise DamagedCheckpoint(Path(checkpoint, kind, str(missing)))
    # Spark reads the newest offsets and those before them; one of the two belongs to the last batch that is done.
    offsets = [f"offsets/{number}" for number in range(max(newest - 1, 0), newest + 1)]
    for name in ("metadata", *offsets, *([] if batch is None else [f"commits/{batch}"])):
        _last_line(checkpoint, name)
    return Progress(checkpoint, batch)


def read_until(checkpoint: str) -> Offsets | None:
    """Where a Kafka stream goes on: for each partition the offset behind the last batch that is done; None without a checkpoint."""
    found = progress(checkpoint)
    return found.kafka_offsets() if found else None


def remove(checkpoint: str) -> None:
    """Take a checkpoint away, so that its stream begins anew.

    Also where only parts of the folder are left: Spark would number new batches like old ones.
    """
    if Path(checkpoint).exists():
        shutil.rmtree(checkpoint)


def _batches(checkpoint: str, kind: str) -> list[int]:
    folder = Path(checkpoint, kind)
    return sorted(int(entry.name) for entry in folder.iterdir() if entry.name.isdigit()) if folder.is_dir() else []


def _last_line(checkpoint: str, name: str) -> dict[str, Any]:
    """What the last line of one of a checkpoint's files says; of offsets, behind the format's version and the settings."""
    file = Path(checkpoint, name)
    try:
        first, *lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
        said = [json.loads(line) for line in lines or [first]]
        is_whole = all(isinstance(one, dict) for one in said)
        if is_whole and (not name.startswith("offsets/") or (first == "v1" and len(said) > 1 and said[-1])):
            return dict(said[-1])
    except (OSError, *UNREADABLE):
        pass
    raise DamagedCheckpoint(file)


def take_new_keys(spark: SparkSession, table: str, into: str, write: Callable[[DataFrame, int], None], name: str, checkpoint: str) -> str:
    """Hand the keys of the rows that were appended to `table` to `write`, batch by batch, which brings them into the table `into`.

    Returns why the stream read the whole table again, if it did: `write` must leave out what it has written before. It reads again
    where it cannot go on from its checkpoint.

    A commit that takes rows away or changes them, as when a person's data must be deleted, is passed over instead of ending the
    stream for good; should it add rows too, monitoring finds them unaccounted for.
    """

    def run() -> None:
        keys = spark.readStream.option("skipChangeCommits", "true").table(table).select(*KEY)
        run_available_now(keys.writeStream.foreachBatch(write), name, checkpoint)

    try:
        was_gone = progress(checkpoint) is None and not spark.table(into).isEmpty()
        run()
        return f"the checkpoint was gone: {READ_AGAIN}" if was_gone else ""
    except CheckpointError as error:
        aside = f"{checkpoint}.aside"
        remove(aside)
        if Path(checkpoint).exists():
            shutil.move(checkpoint, aside)
        try:
            run()
        except CheckpointError as again:  # without its checkpoint too: it was right, and a file of a table as it is now is gone
            remove(checkpoint)
            if Path(aside).exists():
                shutil.move(aside, checkpoint)
            raise damaged_table(again) or again from again
        remove(aside)
        return f"{error}: {READ_AGAIN}"


def run_available_now(writer: DataStreamWriter, name: str, checkpoint: str) -> None:
    """Run a stream with its own `foreachBatch` over what is there now, and wait for its end.

    A `PipelineError` of a batch comes out as one again, since Spark wraps it in pages of stack; any other failure as Spark tells it.
    Raises `CheckpointError` if the stream can only begin anew.
    """
    if progress(checkpoint) is None:
        remove(checkpoint)
    writer = writer.option("checkpointLocation", checkpoint).trigger(availableNow=True)
    try:
        try:
            _run(writer)
        except Exception as error:
            if _SPARK_55271 not in str(error):
                raise
            _run(writer)
    except BaseException as error:
        for told, what in _CANNOT_GO_ON.items():
            if re.search(told.replace("{checkpoint}", re.escape(checkpoint)), str(error)):
                raise CheckpointError(f"The stream {name} could not go on, since {what}") from error
        if cause := _users_mistake(error):
            raise PipelineError(f"The stream {name} failed: {cause}") from error
        raise


def _run(writer: DataStreamWriter) -> None:
    query = writer.start()
    try:
        query.awaitTermination()
    except BaseException:
        if query.isActive:
            query.stop()
        raise


def _users_mistake(error: BaseException) -> str | None:
    """The message of the `PipelineError` or `UsageError` that Spark tells of, if it was one."""
    for line in str(error).splitlines():
        if line.strip().startswith("streaming_pipeline.core.errors."):
            return line.split(":", 1)[1].strip()
    return None
