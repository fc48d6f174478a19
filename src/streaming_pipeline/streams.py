"""What every stream shares: it takes what is available now, and ends."""

from pathlib import Path

from pyspark.sql.streaming.readwriter import DataStreamWriter

from streaming_pipeline.errors import PipelineError

_SPARK_55271 = 'because the return value of "scala.Option.get()" is null'
"""How Spark 4.1's Kafka source fails after the batch that an interrupted run had planned: done and put down, but without numbers to
report. The next start goes on behind it."""


def has_checkpoint(path: str) -> bool:
    """Whether the stream of this checkpoint has planned a batch before."""
    offsets = Path(path, "offsets")
    return offsets.is_dir() and any(entry.name.isdigit() for entry in offsets.iterdir())


def run_available_now(writer: DataStreamWriter, name: str, checkpoint: str, into: str | None = None) -> None:
    """Run a stream over what is there now, and wait for its end.

    `into` names the table to append to; without it the writer has its own `foreachBatch`. A `PipelineError` of a batch comes out
    as one again, since Spark wraps it in pages of stack; any other failure as Spark tells it.
    """
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
