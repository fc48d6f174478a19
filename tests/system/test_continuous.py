"""`run --continuous`: the loop around the job, with notebooks that do next to nothing. test_pipeline.py runs the real ones in it."""

import io
import signal
import threading
from collections import Counter
from pathlib import Path
from textwrap import indent

import numpy as np
import pytest
from rich.console import Console

from laptop import continuous
from laptop.continuous import RunFigures, run_continuously
from streaming_pipeline.core.errors import PipelineError
from streaming_pipeline.core.settings import KafkaSettings
from streaming_pipeline.events.producer import produce
from streaming_pipeline.events.synthetic import Record

INGEST, CLEANSE, TELL = "01_stream_kafka_to_bronze", "02_bronze_to_silver_cleanse", "05_send_alerts"
NUMBER = "from pathlib import Path\nrun = int(Path('runs').read_text()) if Path('runs').exists() else 0\n"
CTRL_C = "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n"
WRONG = "from streaming_pipeline.core.errors import PipelineError\nraise PipelineError('broken on purpose')\n"


def in_run(number: int, code: str) -> str:
    return f"{NUMBER}if run == {number}:\n{indent(code, '    ')}"


class Loop:
    """The bundle, with notebooks that count the runs, and what is printed of these."""

    def __init__(self, folder, home, secrets):
        self.notebooks, self.home, self.secrets, self.printed = folder / "notebooks", home, secrets, io.StringIO()
        for name in (CLEANSE, "03_monitor_silver_events", "04_score_silver_to_gold", TELL):
            self.notebook(name, "pass")
        self.notebook("check_champion", "dbutils.jobs.taskValues.set('exists', 'true')")
        self.ingest("run")

    def notebook(self, name, code):
        (self.notebooks / f"{name}.py").write_text(f"# Databricks notebook source\n{code}\n")

    def ingest(self, records):
        """How many records task 01 says that a run brought."""
        text = f"{NUMBER}run += 1\nPath('runs').write_text(str(run))\ndbutils.jobs.taskValues.set('records', {records})"
        self.notebook(INGEST, text)

    def start(self):
        """Run until a notebook presses Ctrl-C; returns the lines printed. `runs` are then those whose folders are left."""
        before = set(self.home.glob("runs/*"))
        try:
            run_continuously(self.home, secrets=self.secrets, console=Console(file=self.printed, width=200))
        finally:
            pages = [folder / "index.html" for folder in set(self.home.glob("runs/*")) - before]
            self.runs = [page.read_text() for page in sorted(pages, key=lambda page: page.stat().st_mtime_ns)]  # several a second
        return self.printed.getvalue().splitlines()


@pytest.fixture
def loop(spark, home, broker, topic, copied_bundle, monkeypatch):
    monkeypatch.chdir(copied_bundle)
    monkeypatch.setattr(continuous, "LONGEST_PAUSE_SECONDS", 0)
    return Loop(copied_bundle, home, broker.secrets("SSL", topic))


def test_a_failed_run_is_followed_by_the_next_and_ctrl_c_lets_the_run_in_progress_end(loop, monkeypatch):
    monkeypatch.setattr(continuous, "KEPT_RUNS", 1)
    loop.notebook(CLEANSE, in_run(2, WRONG))
    loop.notebook("04_score_silver_to_gold", in_run(4, CTRL_C))
    loop.notebook(TELL, f"{in_run(2, WRONG)}\nPath('last').write_text(str(run))")
    handler = signal.getsignal(signal.SIGINT)
    said = loop.start()
    assert signal.getsignal(signal.SIGINT) == handler
    assert (loop.notebooks / "last").read_text() == "4", "the run in which Ctrl-C came went on to its end"
    assert [line.split()[1] for line in said if " record" in line and "Stopped" not in line] == ["SUCCESS", "FAILED", "SUCCESS", "SUCCESS"]
    assert "02_bronze_to_silver_cleanse: broken on purpose" in said[2] and "index.html" in said[2]
    assert said[-1].startswith("Stopped after 4 runs (1 failed)") and ": 10 records, " in said[-1]
    # The one that failed, and of the others the newest.
    assert ["broken on purpose" in page for page in loop.runs] == [True, False]


def test_a_run_that_told_something_keeps_its_page(loop, monkeypatch):
    monkeypatch.setattr(continuous, "KEPT_RUNS", 0)
    loop.notebook(TELL, in_run(1, "dbutils.jobs.taskValues.set('records', 1)"))
    loop.notebook(CLEANSE, in_run(2, CTRL_C))
    loop.start()
    assert len(loop.runs) == 1


def test_a_second_ctrl_c_ends_the_run_in_progress(loop):
    loop.notebook(CLEANSE, f"{CTRL_C}{CTRL_C}raise AssertionError('it went on')")
    with pytest.raises(KeyboardInterrupt):
        loop.start()
    (page,) = loop.runs
    assert "CANCELED" in page and "it went on" not in page


def test_a_task_over_its_time_is_ended_and_followed_by_the_next_run(loop):
    job = loop.notebooks.parent / "resources" / "full_streaming_pipeline.job.yml"
    before, of_last_task = job.read_text().rsplit("- task_key: 05_send_alerts", 1)
    job.write_text(f"{before}- task_key: 05_send_alerts{of_last_task.replace('timeout_seconds: 1800', 'timeout_seconds: 5')}")
    wait = "import socket\nserver = socket.create_server(('127.0.0.1', 0))\nsocket.create_connection(server.getsockname()).recv(1)"
    loop.notebook(TELL, f"{in_run(2, wait)}\n{in_run(3, CTRL_C)}")
    said = loop.start()
    assert [line.split()[1] for line in said if " record" in line and "Stopped" not in line] == ["SUCCESS", "FAILED", "SUCCESS"]
    assert "05_send_alerts: Task '05_send_alerts' ran longer than its timeout_seconds, 5 s." in said[2]


def test_a_first_run_that_fails_is_the_last(loop):
    for name in (CLEANSE, TELL):
        loop.notebook(name, WRONG)
    with pytest.raises(PipelineError, match="The first run failed"):
        loop.start()
    assert "broken on purpose" in loop.printed.getvalue() and len(loop.runs) == 1


def test_without_records_the_next_run_begins_when_there_are_some(loop, monkeypatch):
    monkeypatch.setattr(continuous, "IDLE_SECONDS", 1e9)
    loop.ingest("run - 1")
    loop.notebook(CLEANSE, in_run(2, CTRL_C))
    kafka = KafkaSettings.from_secrets(loop.secrets)
    later = threading.Timer(3, produce, (kafka, [Record(b"1", b"{}", None)]))
    later.start()
    said = loop.start()
    later.join()
    assert len(loop.runs) == 2 and said[0].endswith("waiting 0") and said[-1].endswith("waiting 1")


def test_latencies_of_many_runs_are_exact_to_a_percent():
    milliseconds, total = np.random.default_rng(1).lognormal(9, 2, 10_000), RunFigures()
    for part in np.split(milliseconds, 100):
        total.add(RunFigures(len(part), Counter(np.rint(100 * np.log1p(part)).astype(int).tolist()), 0))
    assert total.records == 10_000
    for share in (0.01, 0.5, 0.95, 1):
        assert total.latency_seconds(share) == pytest.approx(np.quantile(milliseconds, share, method="inverted_cdf") / 1000, rel=0.01)


def test_the_threads_and_connections_that_streams_leave_behind_are_ended(spark, tmp_path):
    def stream(name):
        rows = spark.readStream.format("rate").option("rowsPerSecond", 1).load()
        writer = rows.writeStream.foreachBatch(lambda batch, number: seen.append((name, threading.current_thread())))
        writer.option("checkpointLocation", str(tmp_path / name)).trigger(availableNow=True).start().awaitTermination()

    seen = []
    stream("one")
    stream("two")
    one, two = (dict(seen)[name] for name in ("one", "two"))
    assert one is not two and one.is_alive() and two.is_alive()
    for _ in range(2):  # the second time some are closed already
        continuous.end_callbacks(spark)
    for thread in (one, two):
        thread.join(60)
        assert not thread.is_alive()
    stream("three")  # and Java can call again
    assert "three" in dict(seen)
    continuous.end_callbacks(spark)
    for _ in range(100):
        spark._jvm.System.gc()
        if not (left := ends_that_java_keeps(spark._sc._gateway.get_callback_server().get_listening_port())):
            break
    assert left == 0


def ends_that_java_keeps(port):
    """How many connections to a port the other side has closed, and this one has not."""
    rows = [row.split() for kind in ("tcp", "tcp6") for row in Path(f"/proc/net/{kind}").read_text().splitlines()[1:]]
    return sum(int(remote.rsplit(":", 1)[1], 16) == port and state == "08" for _, _, remote, state, *_ in rows)  # CLOSE_WAIT
