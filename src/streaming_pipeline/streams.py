"""What every stream shares: it takes what is available now, and ends."""

from pathlib import Path

from pyspark.sql.streaming.readwriter import DataStreamWriter

from streaming_pipeline.errors import PipelineError


def has_checkpoint(path: str) -> bool:
    """Whether the stream of this checkpoint has planned a batch before."""
    offsets = Path(path, "offsets")
    return offsets.is_dir() and any(entry.name.isdigit() for entry in offsets.iterdir())


def run_available_now(writer: DataStreamWriter, name: str, checkpoint: str, into: str | None = None) -> None:
    """Run a stream over what is there now, and wait for its end.

    `into` names the table to append to; without it the writer has its own `foreachBatch`. Raises `PipelineError` with the
    cause's own words if the stream fails, since Spark wraps a user's mistake in pages of stack.
    """
    writer = writer.option("checkpointLocation", checkpoint).trigger(availableNow=True)
    query = writer.toTable(into) if into else writer.start()
    try:
        query.awaitTermination()
    except BaseException as error:
        if query.isActive:
            query.stop()
        if not isinstance(error, Exception):
            raise
        raise PipelineError(f"The stream {name} failed: {_cause(error)}") from error


def _cause(error: Exception) -> str:
    """The line of a streaming failure that says what happened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    for line in lines:
        if "streaming_pipeline.errors." in line:
            return line.split(":", 1)[1].strip()
    causes = [line for line in lines if line.startswith("Caused by:")]
    return (causes[-1].removeprefix("Caused by:") if causes else lines[0] if lines else type(error).__name__).strip()
