"""How long do events take from Kafka to gold while the main job runs again and again, and does the backlog grow?

`run --continuous` as a user starts it, and beside it `produce` at a steady rate, each a process of its own on this machine. The figures
come from the tables and the topic, not from what the command prints of itself.
"""

import argparse
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
from bench import ROOT, fresh_home, memory_by_kind, table, with_descendants, write_section

from laptop.services.broker import running_broker
from laptop.services.spark import start_session
from streaming_pipeline.events import synthetic
from streaming_pipeline.events.producer import produce

RATE, SECONDS, FIRST_EVENTS = 1_000, 300, 20_000
PARTS = 5
"""The time of production is looked at in so many parts."""


class Command:
    """The command line in a process of its own, in the project's folder; `lines` is what it has printed so far."""

    def __init__(self, *arguments: str, home: Path) -> None:
        line = [sys.executable, "-m", "laptop.cli", *arguments, "--home", str(home)]
        # Whatever Kafka `.env` names: the local broker.
        kafka = {key: value for key, value in os.environ.items() if not key.startswith("KAFKA_")}
        self.process = subprocess.Popen(line, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=kafka)
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stdout:
            print(line, end="", flush=True)
            self.lines.append(line)

    def wait_for_runs(self, count: int) -> None:
        """Until that many more runs have ended."""
        until = len(self.lines) + count
        while len(self.lines) < until:
            if self.process.poll() is not None:
                raise SystemExit(f"It ended with {self.process.returncode}.")
            time.sleep(0.2)

    def end(self) -> None:
        """Wait for its end, which must be a good one."""
        code = self.process.wait()
        self._reader.join()
        if code:
            raise SystemExit(f"It ended with {code}.")

    def held(self) -> dict[str, int]:
        """What its processes hold now: MiB of memory, by the program's name, and open files."""
        pids = with_descendants(self.process.pid)
        memory = {kind: round(held / 2**20) for kind, held in memory_by_kind(pids).items()}
        files = 0
        for pid in pids:
            with suppress(OSError):  # it has just ended
                files += len(os.listdir(f"/proc/{pid}/fd"))
        return {**memory, "files": files}


def way_to_gold(home: Path, began: datetime, part: float) -> tuple[pd.DataFrame, pd.DataFrame, int, int]:
    """Of the events since then `part` (of so many seconds) and `seconds` from Kafka to gold's commit; of the looks since then `part` and
    `waiting`; then the rows of gold, and how many different records these are."""
    spark = start_session(home)
    spark.sql("USE streaming")
    gold = spark.sql("SELECT topic_id, partition, offset, kafka_timestamp, scored_at FROM gold_anomaly_predictions").toPandas()
    writes = spark.sql("DESCRIBE HISTORY gold_anomaly_predictions").where("operation = 'WRITE'").toPandas()["timestamp"].sort_values()
    looks = spark.sql("SELECT run_time, kafka_lag_records AS waiting FROM monitor_logs ORDER BY run_time").toPandas()
    spark.stop()
    begin = pd.Timestamp(began).tz_convert(None)
    events = gold[gold["kafka_timestamp"] >= begin]
    committed = writes.to_numpy()[np.searchsorted(writes, events["scored_at"])]
    part_of = lambda at: (at - begin) // pd.Timedelta(seconds=part)  # noqa: E731
    seconds = (committed - events["kafka_timestamp"]).dt.total_seconds()
    looks = looks[looks["run_time"] >= begin]
    took = pd.DataFrame({"part": part_of(events["kafka_timestamp"]), "seconds": seconds})
    waiting = pd.DataFrame({"part": part_of(looks["run_time"]), "waiting": looks["waiting"]})
    return took, waiting, len(gold), len(gold.drop_duplicates(["topic_id", "partition", "offset"]))


def main() -> None:
    """Run both, and write the section of RESULTS.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=int, default=RATE)
    parser.add_argument("--seconds", type=int, default=SECONDS)
    options = parser.parse_args()
    home = fresh_home("continuous")
    with running_broker(home) as broker:
        broker.create_topic("stream-input")
        # What the first run trains its model from.
        produce(broker.kafka_settings("SSL"), synthetic.generate(FIRST_EVENTS, faults=[]))
        job = Command("run", "--continuous", home=home)
        job.wait_for_runs(1)
        began, part, held = datetime.now(UTC), options.seconds / PARTS, [job.held()]
        producer = Command("produce", "--rate", str(options.rate), "--duration", str(options.seconds), home=home)
        for n in range(1, PARTS):
            time.sleep(max(0.0, n * part - (datetime.now(UTC) - began).total_seconds()))
            held.append(job.held())
        producer.end()
        ended = datetime.now(UTC)
        held.append(job.held())
        job.wait_for_runs(2)  # the first of these may have begun before the last event
        job.process.send_signal(signal.SIGINT)
        job.end()
        produced = FIRST_EVENTS + int(producer.lines[-1].split()[0].replace(",", ""))
    took, waiting, rows, records = way_to_gold(home, began, part)
    if not produced == rows == records:
        raise SystemExit(f"{produced:,} events were produced, gold has {rows:,} rows of {records:,} records.")
    at = {n: (took[took["part"] == n]["seconds"], waiting[waiting["part"] == n]["waiting"]) for n in range(PARTS)}
    later = took[took["part"] > 0]["seconds"]
    backlog = {n: looked.mean() for n, (_, looked) in at.items()}
    quantiles = lambda seconds: [f"{share:.1f}" for share in seconds.quantile([0.5, 0.95])]  # noqa: E731
    goals = [
        ["p95 from Kafka to gold, from the second part on", "in the order of 10 s", f"{later.quantile(0.95):.1f} s"],
        ["records waiting, last part against second", "not more", f"{backlog[PARTS - 1]:,.0f} against {backlog[1]:,.0f}"],
        ["events produced, in gold, different ones", "equal", f"{produced:,}, {rows:,}, {records:,}"],
    ]
    kinds = [name for name in held[0] if name != "files"]
    runs = len(waiting[waiting["part"].isin(range(PARTS))])
    write_section(
        "Continuous"
        if (options.rate, options.seconds) == (RATE, SECONDS)
        else f"Continuous, {options.rate:,} a second for {options.seconds} s",
        f"{options.rate:,} events a second for {options.seconds} s, produced on the same machine. {runs} runs in that time, "
        f"{(ended - began).total_seconds() / runs:.1f} s each.\n\n"
        + table(["measure", "goal", "measured"], goals)
        + f"\n\nBy parts of {part:g} s. Memory (proportional set size) and open files are those of the command and its Spark at the end of "
        + f"the part; before the first: {', '.join(f'{name} {n:,}' for name, n in held[0].items())}.\n\n"
        + table(
            [
                "part",
                "runs",
                "p50, s",
                "p95, s",
                "records waiting when a run looked, mean",
                "most",
                *(f"{name}, MiB" for name in kinds),
                "files",
            ],
            [
                [
                    n + 1,
                    len(look),
                    *quantiles(seconds),
                    f"{look.mean():,.0f}",
                    f"{look.max():,.0f}",
                    *(f"{held[n + 1].get(k, 0):,}" for k in (*kinds, "files")),
                ]
                for n, (seconds, look) in at.items()
            ],
        ),
    )


if __name__ == "__main__":
    main()
