"""The main job again and again in one warm Spark session, until somebody stops it."""

import contextlib
import math
import os
import shutil
import signal
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from rich.console import Console

from laptop.jobs.reporter import Reporter
from laptop.jobs.runner import why
from laptop.run import SETTINGS, laptop, new_run_id
from laptop.services.spark import new_session
from streaming_pipeline.bronze.ingest import waiting_offsets
from streaming_pipeline.core import tables
from streaming_pipeline.core.contract import load_contract
from streaming_pipeline.core.errors import PipelineError
from streaming_pipeline.core.run_log import held_back
from streaming_pipeline.core.settings import Settings
from streaming_pipeline.core.wording import duration, plural

KEPT_RUNS = 20
"""So many of the newest runs keep their folder, besides those that failed or told somebody of something."""
LONGEST_PAUSE_SECONDS = 60.0
"""Between runs that fail one after another: 1 s, 2 s, 4 s … up to this."""
IDLE_SECONDS = 60.0
"""Without new records the job runs as often: silences are found, and alerts that could not be delivered are tried again."""
_RUNS_BETWEEN_CLEANINGS = 100
_LOG_KEPT_MINUTES = 60
_CONFS = {
    # Each run adds a few small files to each table, and every look at one would open more and more of them.
    "spark.databricks.delta.autoCompact.enabled": "true",
}
FEW_RECORDS = 100_000
_FOR_FEW = {
    # Spark's plans for millions of rows cost more than they save: each new offset in a condition makes new classes of Java, to be compiled
    # by Spark, and by Java once they are used. Without them a run of some 10,000 records takes a quarter less.
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    "spark.sql.adaptive.enabled": "false",
}
"""While no more records wait."""
_INGEST, _SCORE, _TELL = "01_stream_kafka_to_bronze", "04_score_silver_to_gold", "05_send_alerts"


@dataclass
class RunFigures:
    """What a run, or several, did: records that came in, how long events took from Kafka to gold, and what waits on the topic.

    `latencies` counts events by the logarithm of their milliseconds, so that days of them take no room; a quantile is exact to 1 %.
    """

    records: int = 0
    latencies: Counter[int] = field(default_factory=Counter)
    waiting: int | None = None

    def add(self, others: "RunFigures") -> None:
        """Put a later run's figures to these."""
        self.records += others.records
        self.latencies += others.latencies
        self.waiting = others.waiting

    def latency_seconds(self, share: float) -> float:
        """So much or less took this share of the events."""
        sizes, events = (np.array(column) for column in zip(*sorted(self.latencies.items()), strict=True))
        size = sizes[np.searchsorted(events.cumsum(), share * events.sum())]
        return (math.exp(size / 100) - 1) / 1000

    def __str__(self) -> str:
        p50, p95 = (duration(self.latency_seconds(share)) for share in (0.5, 0.95)) if self.latencies else ("none",) * 2
        waiting = "unknown" if self.waiting is None else f"{self.waiting:,}"
        return f"{plural(self.records, 'record')}, latency p50 {p50}, p95 {p95}, waiting {waiting}"


def run_continuously(home: Path, *, console: Console, **options: Any) -> SparkSession:
    """Run the main job until Ctrl-C or SIGTERM, with a line for each run and one for all of them at the end. Options as of `laptop`.

    The run in progress is finished first; a second Ctrl-C raises `KeyboardInterrupt` at once. A run that fails is told and followed by the
    next one, after a pause. Returns the Spark session. Raises `PipelineError` where to go on would be in vain: the first run has failed,
    or Spark has ended.
    """
    total, kept = RunFigures(), deque()
    began, runs, failed, in_a_row = time.monotonic(), 0, 0, 0
    with laptop(home, confs=_CONFS, **options) as ready, _stopping() as stop, held_back() as write_logs:
        reporter, sessions = Reporter(console, brief=True), _Sessions(ready.spark)
        while not stop.asked:
            run = ready.run(new_run_id(), reporter, sessions, show_tables=False)
            settings = Settings.from_parameters({name: text for name, text in run.parameters.items() if name in SETTINGS}, ready.secrets)
            rows = {task.key: task.rows or 0 for task in run.tasks}
            took = latencies(sessions("between runs"), settings, run.started) if rows.get(_SCORE) else Counter()
            with contextlib.suppress(Exception):  # they wait for the end of the next run, which tells better what is wrong
                write_logs(sessions("between runs"), settings)
            figures = RunFigures(rows.get(_INGEST, 0), took, _waiting(settings))
            total.add(figures)
            end_callbacks(ready.spark)
            sessions.are_for_few = figures.waiting is not None and figures.waiting <= FEW_RECORDS
            runs += 1
            reporter.say(f"{run.started.astimezone():%H:%M:%S}  {run.state} in {duration(run.seconds)}: {figures}")
            if run.state == "SUCCESS":
                in_a_row = 0
                if not rows.get(_TELL):  # else a mail leads to its page
                    kept.append({run.run_dir, Path(settings.run_dir)})
                if len(kept) > KEPT_RUNS:
                    for folder in kept.popleft():
                        shutil.rmtree(folder, ignore_errors=True)
                if runs % _RUNS_BETWEEN_CLEANINGS == 0:  # every stream has read what came before this run
                    with contextlib.suppress(Exception):  # it saves time, no more
                        shorten_logs(sessions("between runs"), settings)
                if not figures.records and figures.waiting == 0:
                    stop.wait(IDLE_SECONDS, unless=lambda settings=settings: _waiting(settings) != 0)
                continue
            failed += 1
            sessions.forget()
            reporter.say(f"  {why(run)} ({run.run_dir / 'index.html'})")
            if runs == 1:
                raise PipelineError("The first run failed, and later ones would fail too: fix the cause, then start again.")
            if not _answers(ready.spark):
                raise PipelineError(f"Spark has ended: start again. {home / 'logs'} may say why.")
            stop.wait(min(2**in_a_row, LONGEST_PAUSE_SECONDS))
            in_a_row += 1
    took = duration(time.monotonic() - began)
    reporter.say(f"Stopped after {plural(runs, 'run')} ({failed:,} failed) in {took}: {total}")
    return ready.spark


class _Sessions:
    """The session of each task, kept from run to run: Spark lets go of none that had a stream, and six new ones a run would fill the
    heap within hours."""

    def __init__(self, spark: SparkSession) -> None:
        self._spark, self._held = spark, {}
        self.are_for_few = False
        """Whether few records are expected."""

    def __call__(self, task_key: str) -> SparkSession:
        if task_key not in self._held:
            self._held[task_key] = new_session(self._spark)
        session = self._held[task_key]
        for name, value in _FOR_FEW.items():
            session.conf.set(name, value) if self.are_for_few else session.conf.unset(name)
        return session

    def forget(self) -> None:
        """Give new ones from now on: who knows what a task that failed has left."""
        self._held.clear()


def end_callbacks(spark: SparkSession) -> None:
    """End Py4J's threads that wait for calls from Java, while no stream is running: each stream has a thread of Java of its own, and leaves
    one of Python, with a connection, that would wait for ever. Spark Connect has none."""
    gateway = getattr(getattr(spark, "_sc", None), "_gateway", None)
    server = getattr(gateway, "_callback_server", None)
    for connection in list(getattr(server, "connections", ())):
        with contextlib.suppress(OSError, AttributeError):  # one that is closed already has no socket
            connection.socket.shutdown(socket.SHUT_RDWR)  # its thread reads the end, and closes it
    if server:
        # Java's client keeps its ends of them for as long as it lives; a new one lets Java close them.
        java = gateway.java_gateway_server
        java.resetCallbackClient(java.getCallbackClient().getAddress(), server.get_listening_port())


def shorten_logs(spark: SparkSession, settings: Settings) -> None:
    """Take from the logs of the tables what is older than an hour and not needed to read them.

    Delta lists a table's whole log at each commit, and takes away by itself what is older than days. The logs of silver and gold stay: a
    version of the model names the version of silver that it was trained on, and gold can be read as it was. Spark Connect has no access to
    any log.
    """
    jvm = getattr(spark, "_jvm", None)
    if jvm is None:
        return
    delta = jvm.org.apache.spark.sql.delta
    minute = getattr(getattr(delta, "TruncationGranularity$"), "MODULE$").MINUTE()
    # Py4J would hand a number of this size over as an Integer.
    kept = jvm.java.util.stream.LongStream.of(_LOG_KEPT_MINUTES * 60_000).boxed().findFirst()
    kept = jvm.scala.jdk.javaapi.OptionConverters.toScala(kept)
    for table in tables.all_tables(load_contract(settings.contract_path)):
        name = settings.table(table.name)
        if table.name not in ("silver_events", "gold_anomaly_predictions") and spark.catalog.tableExists(name):
            location = spark.sql(f"DESCRIBE DETAIL {name}").first()["location"]
            log = delta.DeltaLog.forTable(spark._jsparkSession, location)
            log.cleanUpExpiredLogs(log.unsafeVolatileSnapshot(), jvm.scala.Option.empty(), kept, minute)


def latencies(spark: SparkSession, settings: Settings, since: datetime) -> Counter[int]:
    """How long the events that were scored since then took from their Kafka timestamp to gold's newest commit, as in `RunFigures`."""
    gold = settings.table("gold_anomaly_predictions")
    writes = spark.sql(f"DESCRIBE HISTORY {gold} LIMIT 3").where("operation = 'WRITE'")
    committed = writes.agg(F.max(F.unix_millis("timestamp"))).first()[0]
    took = F.greatest(F.lit(0), F.lit(committed) - F.unix_millis("kafka_timestamp"))
    scored = spark.table(gold).where(F.col("scored_at") >= F.lit(since))
    sizes = scored.groupBy(F.round(100 * F.log1p(took)).cast("int").alias("size")).count().collect()
    return Counter({row["size"]: row["count"] for row in sizes})


def _waiting(settings: Settings) -> int | None:
    """How many records wait on the topic; None where Kafka cannot be asked, which the next run tells better."""
    try:
        return waiting_offsets(settings)
    except PipelineError:
        return None


def _answers(spark: SparkSession) -> bool:
    try:
        return spark.range(1).count() == 1
    except Exception:  # whatever a connection to a JVM that is gone ends with
        return False


class _Stop:
    """Whether to stop: the first Ctrl-C (or SIGTERM, of which the command line makes one) asks for it, the next one ends all at once."""

    asked = False

    def __call__(self, *_: object) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        with contextlib.suppress(OSError):  # not by print: in a notebook that would be its own output
            os.write(2, b"Stopping when this run has ended; Ctrl-C again stops at once.\n")

    def wait(self, seconds: float, unless: Callable[[], bool] = lambda: False) -> None:
        """Wait for so long, or until it is asked, or `unless` is so, which is looked at every second."""
        end = time.monotonic() + seconds
        while not self.asked and time.monotonic() < end and not unless():
            time.sleep(min(1, max(0, end - time.monotonic())))


@contextlib.contextmanager
def _stopping() -> Iterator[_Stop]:
    """Ctrl-C as `_Stop` takes it, within the block."""
    stop = _Stop()
    previous = signal.signal(signal.SIGINT, stop)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, previous)
