"""What Spark did between two moments, by its own event log: jobs and their stages."""

import io
import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa

_METRICS = {
    "records_read": ("internal.metrics.input.recordsRead", "internal.metrics.shuffle.read.recordsRead"),
    "records_written": ("internal.metrics.output.recordsWritten",),
    "shuffle_bytes": ("internal.metrics.shuffle.write.bytesWritten",),
    "spilled_bytes": ("internal.metrics.diskBytesSpilled",),
}


def jobs_within(folder: Path, periods: Iterable[tuple[float, float]]) -> list[dict[str, Any]]:
    """The stages of the jobs that began within one of `periods` (from, until, in seconds since 1970), one row each: `job`, `what`, `stage`,
    `tasks`, `seconds`, and sums over the tasks: `records_read`, `records_written`, `shuffle_bytes`, `spilled_bytes`.

    `folder` is that of `spark.eventLog.dir`; without a log in it there are none. Stages that were skipped, since their output was there,
    are left out.
    """
    periods = list(periods)
    job_of_stage: dict[int, int] = {}
    rows = []
    for event in _events(folder):
        if event["Event"] == "SparkListenerJobStart":
            began = event["Submission Time"] / 1000
            if any(begin <= began <= end for begin, end in periods):
                job_of_stage |= dict.fromkeys(event["Stage IDs"], event["Job ID"])
        elif event["Event"] == "SparkListenerStageCompleted" and (stage := event["Stage Info"])["Stage ID"] in job_of_stage:
            sums = {held["Name"]: int(held["Value"]) for held in stage["Accumulables"] if held.get("Name", "").startswith("internal.")}
            rows.append(
                {
                    "job": job_of_stage[stage["Stage ID"]],
                    "stage": stage["Stage ID"],
                    "what": "Delta's own" if stage["Stage Name"].startswith("$") else stage["Stage Name"].split(" at ")[0],
                    "tasks": stage["Number of Tasks"],
                    "seconds": (stage["Completion Time"] - stage["Submission Time"]) / 1000,
                    **{name: sum(sums.get(metric, 0) for metric in metrics) for name, metrics in _METRICS.items()},
                }
            )
    return sorted(rows, key=lambda row: (row["job"], row["stage"]))


def _events(folder: Path) -> Iterator[dict[str, Any]]:
    """The log's events about jobs and stages; what a Spark that still runs has not written yet, or what is damaged, is not there."""
    for file in sorted(file for file in folder.glob("*") if file.is_file()):
        with suppress(OSError, ValueError), pa.input_stream(file, compression="zstd") as log:  # its end, while it is being written
            for line in io.BufferedReader(log):
                if line.startswith((b'{"Event":"SparkListenerJobStart"', b'{"Event":"SparkListenerStageCompleted"')):
                    yield json.loads(line)
