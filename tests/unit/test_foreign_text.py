"""What a producer writes into a record is text wherever it is shown: it moves no cursor, forges no line and hides behind no other name."""

import io
import json
from dataclasses import fields
from datetime import UTC, datetime, timedelta

import nbformat
import pandas as pd
import pytest
from foreign_cases import FOREIGN, assert_is_text
from rich.console import Console

from laptop import cli
from laptop.jobs.notebook_page import notebook_page, pandas_table
from laptop.jobs.records import CellError, JobRun, TaskRun
from laptop.jobs.reporter import Reporter
from laptop.jobs.run_page import write_run_page
from laptop.report import charts
from laptop.sql import render
from streaming_pipeline.alerts.mail import compose, webhook_text
from streaming_pipeline.alerts.outbox import Alert
from streaming_pipeline.core.foreign_text import NAME, harmless
from streaming_pipeline.monitoring.monitor import MonitorLog

LINE = FOREIGN.replace("\n", " ")
"""The same in an error of several lines, of which nobody can say which are ours."""
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", ""),
        ("naïve 日本 😀 [b] \\n", "naïve 日本 😀 [b] \\n"),
        ("a\nb\tc\r\x00\x1b\x7f\x85\x9b", "a\\nb\\tc\\r\\x00\\x1b\\x7f\\x85\\x9b"),
        ("\u200b\u202e\u2066\u2028\ufeff\xa0\ud800", "\\u200b\\u202e\\u2066\\u2028\\ufeff\\xa0\\ud800"),
        ("x" * 60, "x" * 60),
        ("x" * 61, "x" * 59 + "…"),
        ("\n" * 1_000, "\\n" * 29 + "\\…"),
    ],
)
def test_what_nobody_sees_is_written_out_and_what_is_long_is_cut(text, shown):
    assert harmless(text, NAME) == shown == harmless(shown, NAME)


def test_a_text_of_several_lines_keeps_them():
    assert harmless("a\n\tb\x1b", is_lines=True) == "a\n\tb\\x1b"


@pytest.mark.parametrize("is_terminal", [False, True])
def test_of_a_runs_notes_and_errors(tmp_path, is_terminal):
    cell = CellError(tmp_path / "n.py", "python", 3, "work()", LINE, f"ValueError: {LINE}", False)
    tasks = [TaskRun("a", "SUCCESS", NOW, NOW, note=FOREIGN), TaskRun("b", "FAILED", NOW, NOW, error=LINE, cell=cell)]
    tasks += [TaskRun("c", "FAILED", NOW, NOW, error=LINE)]
    run = JobRun("job", "job", "run", tmp_path, {"name": LINE}, NOW, tasks, "FAILED", ended=NOW)
    console = Console(file=io.StringIO(), width=500, force_terminal=is_terminal, no_color=True)
    reporter = Reporter(console)
    with reporter.showing(run):
        for task in tasks:
            reporter.task_ended(task)
    assert_is_text(console.file.getvalue().replace("\x1b[1m", ""), 3)
    assert_is_text(write_run_page(run, tmp_path, lambda text: text).read_text(encoding="utf-8"), 4, is_html=True)


def test_of_what_the_command_says(capsys, tmp_path):
    assert cli.main(["sql", FOREIGN, "--home", str(tmp_path / LINE.replace("/", ""))]) == 2
    assert_is_text(capsys.readouterr().err)


def test_of_a_notebooks_tables_and_prints():
    table = pandas_table(pd.DataFrame({FOREIGN: [FOREIGN, LINE]}))
    assert_is_text(table, 3, is_html=True)
    outputs = [nbformat.v4.new_output("stream", text=LINE), nbformat.v4.new_output("error", evalue=LINE, traceback=[LINE])]
    cell = nbformat.v4.new_code_cell("work()", metadata={"title": "", "state": ""}, outputs=outputs)
    assert_is_text(notebook_page("n", {"state": "FAILED", "started": "", "seconds": 1.0}, [cell], lambda text: text), 2, is_html=True)


def test_of_a_table_but_not_of_csv_and_json():
    def shown(form, **options):
        console = Console(file=io.StringIO(), **options)
        render([FOREIGN], [(FOREIGN,), ([LINE],)], form, console)
        return console.file.getvalue()

    assert_is_text(shown("table", width=200), 2)
    assert_is_text(shown("table", width=12, force_terminal=True, no_color=True).replace("\n", ""), 0)
    assert FOREIGN in shown("csv")
    assert json.loads(shown("json"))[0] == {FOREIGN: FOREIGN}


def test_of_the_drift_map():
    cell = {"window_start": NOW, "window_end": NOW + timedelta(hours=1), "is_drift": True, "times_threshold": 1.5, "column_name": FOREIGN}
    assert_is_text(charts.svg(charts.heat_map([cell], {}), "drift"), is_html=True)


def test_of_messages():
    text = {"message": FOREIGN, "subject": FOREIGN, "metric": FOREIGN, "query": FOREIGN, "table_name": FOREIGN}
    times = {"event_time": NOW, "next_attempt_at": NOW, "created_at": NOW}
    alerts = [Alert(str(n), str(n), "drift", "warning", run_id="r", rule="drift", **times, **text) for n in range(30)]
    mail = compose("id", alerts, "a@example.com", ["b@example.com"], "streaming")
    assert_is_text(mail["Subject"])
    assert_is_text(mail.get_body(("plain",)).get_content(), 100)
    assert_is_text(mail.get_body(("html",)).get_content(), 100, is_html=True)
    assert_is_text(webhook_text(alerts, "streaming"), 30)


def test_of_monitorings_note():
    held = dict.fromkeys((field.name for field in fields(MonitorLog)), None)
    assert_is_text(
        MonitorLog(**{**held, "status": "Healthy", "conflicting_events": 0, "unknown_fields": {FOREIGN: 7}, "incidents": {}}).note
    )
