"""The runner: which tasks of a job run, with what, how they end, and what is kept of a run."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from runner_cases import LOG, Bench, states

from laptop.jobs import runner
from laptop.jobs.graph import compare, decide

ROOT = Path(__file__).parents[2]


def after(task: dict, *keys: str, **settings) -> dict:
    return {**task, "depends_on": [{"task_key": key} for key in keys], **settings}


# ---- order and results


def test_tasks_run_in_order_of_their_dependencies_and_then_of_declaration(bench):
    code = LOG + "log(dbutils.widgets.get('me'))"
    tasks = {}
    for name in "dcba":
        tasks[name] = bench.notebook(name, code)
        tasks[name]["notebook_task"]["base_parameters"] = {"me": "{{task.name}} {{task.run_id}}"}
    bench.job(after(tasks["d"], "b", "c"), tasks["c"], after(tasks["b"], "a"), tasks["a"])
    run = bench.run()
    assert bench.log() == ["c 7-c", "a 7-a", "b 7-b", "d 7-d"]
    assert run.state == "SUCCESS"
    assert set(states(run).values()) == {"SUCCESS"}
    assert [task.html.name for task in run.tasks] == ["c.html", "a.html", "b.html", "d.html"]


def test_every_notebook_gets_a_session_of_its_own_and_its_streams_end_with_it(bench):
    class Session(SimpleNamespace):
        def stop_stream(self):
            stopped.append(self.number)

    sessions, stopped = [], []

    def new_session(_):
        session = Session(number=len(sessions))
        session.streams = SimpleNamespace(active=[SimpleNamespace(stop=session.stop_stream)])
        sessions.append(session)
        return session

    bench.job(bench.notebook("a", LOG + "log(spark.number)"), bench.notebook("b", LOG + "log(spark.number)\n1 / 0"))
    bench.run(spark_for_task=new_session)
    assert bench.log() == ["0", "1"]
    assert stopped == [0, 1]


def test_a_failed_task_fails_those_behind_it_and_the_job(bench):
    bench.job(
        bench.notebook("good", "dbutils.jobs.taskValues.set('records', 1234)"),
        after(bench.notebook("bad", "x = 1\nx / 0"), "good"),
        after(bench.notebook("behind"), "bad"),
        after(bench.notebook("cleanup"), "bad", run_if="ALL_DONE"),
    )
    run = bench.run()
    assert states(run) == {"good": "SUCCESS", "bad": "FAILED", "behind": "UPSTREAM_FAILED", "cleanup": "SUCCESS"}
    assert run.state == "FAILED"
    good, bad, behind, _ = run.tasks
    assert (good.rows, good.attempts, good.error) == (1234, 1, "")
    assert "ZeroDivisionError" in bad.error
    assert (bad.cell.line, bad.cell.source) == (3, "x = 1\nx / 0")
    assert (behind.started, behind.html) == (None, None)


def test_a_job_whose_last_task_succeeds_succeeds_as_in_a_workspace(bench):
    bench.job(bench.notebook("bad", "1 / 0"), after(bench.notebook("last"), "bad", run_if="AT_LEAST_ONE_FAILED"))
    assert bench.run().state == "SUCCESS"


@pytest.mark.parametrize(
    ("run_if", "ends", "decision"),
    [
        ("ALL_SUCCESS", "SUCCESS SUCCESS", "RUN"),
        ("ALL_SUCCESS", "SUCCESS FAILED", "UPSTREAM_FAILED"),
        ("ALL_SUCCESS", "SUCCESS EXCLUDED", "EXCLUDED"),
        ("NONE_FAILED", "SUCCESS EXCLUDED", "RUN"),
        ("NONE_FAILED", "SUCCESS UPSTREAM_FAILED", "UPSTREAM_FAILED"),
        ("AT_LEAST_ONE_SUCCESS", "SUCCESS TIMEDOUT", "RUN"),
        ("AT_LEAST_ONE_SUCCESS", "FAILED EXCLUDED", "UPSTREAM_FAILED"),
        ("ALL_DONE", "FAILED UPSTREAM_FAILED", "RUN"),
        ("ALL_DONE", "FAILED EXCLUDED", "RUN"),
        ("AT_LEAST_ONE_FAILED", "FAILED SUCCESS", "RUN"),
        ("AT_LEAST_ONE_FAILED", "SUCCESS SUCCESS", "EXCLUDED"),
        ("ALL_FAILED", "FAILED TIMEDOUT", "RUN"),
        ("ALL_FAILED", "FAILED SUCCESS", "EXCLUDED"),
        *((run_if, "EXCLUDED EXCLUDED", "EXCLUDED") for run_if in ("ALL_SUCCESS", "NONE_FAILED", "ALL_DONE", "AT_LEAST_ONE_FAILED")),
    ],
)
def test_run_if(run_if, ends, decision):
    first, second = ends.split()
    task = {"run_if": run_if, "depends_on": [{"task_key": "first"}, {"task_key": "second"}]}
    assert decide(task, {"first": first, "second": second}, {}) == decision


# ---- conditions, called jobs


def branches(bench: Bench, exists: str) -> None:
    """The shape of the main job: check → condition → train if there is none → score."""
    condition = {"left": "{{tasks.check.values.exists}}", "op": "EQUAL_TO", "right": "true"}
    bench.job(
        bench.notebook("check", f"dbutils.jobs.taskValues.set('exists', {exists!r})"),
        after({"task_key": "has_model", "condition_task": condition}, "check"),
        {
            "task_key": "train",
            "depends_on": [{"task_key": "has_model", "outcome": "false"}],
            "run_job_task": {"job_id": "training", "job_parameters": {"schema": "{{job.parameters.schema}}"}},
        },
        after(bench.notebook("score"), "check", "train", run_if="NONE_FAILED"),
        parameters=[{"name": "schema", "default": "silver"}],
    )


def test_a_condition_leads_to_the_called_job_or_around_it(bench):
    bench.job(
        bench.notebook("fit", LOG + "log(dbutils.widgets.getAll())"),
        key="training",
        parameters=[{"name": "schema", "default": "none"}, {"name": "run_id", "default": "{{job.run_id}} of {{job.name}} {{job.id}}"}],
    )
    branches(bench, "true")
    run = bench.run()
    assert states(run) == {"check": "SUCCESS", "has_model": "SUCCESS", "train": "EXCLUDED", "score": "SUCCESS"}
    assert run.tasks[1].outcome == "true"

    branches(bench, "false")
    run = bench.run(schema="gold")
    assert set(states(run).values()) == {"SUCCESS"}
    assert bench.log() == ["{'schema': 'gold', 'run_id': '7 of The training job training'}"]
    assert [(task.key, depth) for task, depth in run.all_tasks()] == [
        ("check", 0),
        ("has_model", 0),
        ("train", 0),
        ("fit", 1),
        ("score", 0),
    ]
    assert run.tasks[2].children[0].html.name == "train.fit.html"

    bench.notebook("fit", "1 / 0")
    run = bench.run()
    assert states(run) == {"check": "SUCCESS", "has_model": "SUCCESS", "train": "FAILED", "score": "UPSTREAM_FAILED"}
    assert run.tasks[2].error == "Job 'training' failed: fit FAILED."


@pytest.mark.parametrize(
    ("left", "op", "right", "result"),
    [
        ("12.0", "EQUAL_TO", "12", False),
        ("a", "EQUAL_TO", "a", True),
        ("12.0", "NOT_EQUAL", "12", True),
        ("12.0", "GREATER_THAN_OR_EQUAL", "12", True),
        ("9", "LESS_THAN", "10", True),
        ("9", "GREATER_THAN", "10", False),
        ("10", "LESS_THAN_OR_EQUAL", "10", True),
    ],
)
def test_conditions_compare_texts_for_equality_and_numbers_for_order(left, op, right, result):
    assert compare(left, op, right) is result


def test_a_condition_without_its_value_or_number_fails_its_task(bench):
    condition = {"left": "{{tasks.a.values.n}}", "op": "GREATER_THAN", "right": "1"}
    for code, message in [
        ("pass", "{{tasks.a.values.n}} has no value: task 'a' ended as SUCCESS and never set 'n'."),
        ("dbutils.jobs.taskValues.set('n', 'many')", "condition 'many' GREATER_THAN '1': both sides must be numbers."),
    ]:
        bench.job(bench.notebook("a", code), after({"task_key": "c", "condition_task": condition}, "a"))
        run = bench.run()
        assert (run.state, run.tasks[1].state, run.tasks[1].error) == ("FAILED", "FAILED", message)


# ---- parameters and dynamic values


def test_parameters_and_dynamic_values_reach_the_notebooks(bench):
    last = bench.notebook("last", LOG + "for name, value in dbutils.widgets.getAll().items():\n    log(name, '=', value)")
    last["notebook_task"]["base_parameters"] = {
        "states": '{"a": "{{tasks.a.result_state}}", "b": "{{ tasks.`b`.result_state }}"}',
        "list": "{{tasks.a.values.list}}",
        "count": 3,
        "shared": "the task's",
        "at": "{{job.start_time.iso_date}}",
        "attempt": "{{task.execution_count}}",
    }
    bench.job(
        bench.notebook("a", "dbutils.jobs.taskValues.set('list', [1, True])"),
        bench.notebook("b", "1 / 0"),
        after(last, "a", "b", run_if="ALL_DONE"),
        parameters=[
            {"name": "shared", "default": "the job's"},
            {"name": "given", "default": "x"},
            {"name": "run", "default": "{{job.run_id}}"},
        ],
    )
    run = bench.run(given="{{as it is}}")
    assert bench.log() == [
        'states = {"a": "success", "b": "failed"}',
        "list = [1, true]",
        "count = 3",
        "shared = the job's",
        f"at = {run.started:%Y-%m-%d}",
        "attempt = 1",
        "given = {{as it is}}",
        "run = 7",
    ]
    assert run.parameters == {"shared": "the job's", "given": "{{as it is}}", "run": "7"}


def test_an_unknown_parameter_is_refused_with_the_jobs_own(bench):
    bench.job(bench.notebook("a"), parameters=[{"name": "catalog", "default": "main"}, {"name": "schema", "default": "s"}])
    assert bench.refusal(catalogue="x") == "Job 'main' has no parameter 'catalogue'. Its parameters: catalog, schema."


# ---- retries and time limits


def test_a_task_is_tried_again_as_often_as_the_job_says(bench):
    code = LOG + "log('try')\nif len(open('log').readlines()) < 3:\n    1 / 0"
    bench.job({**bench.notebook("a", code), "max_retries": 2, "min_retry_interval_millis": 1})
    run = bench.run()
    assert (run.state, run.tasks[0].attempts, run.tasks[0].error) == ("SUCCESS", 3, "")
    assert "a: attempt 1 failed, trying again: ZeroDivisionError: division by zero" in bench.printed.getvalue()

    bench.job({**bench.notebook("b", "1 / 0"), "max_retries": 1, "min_retry_interval_millis": 1})
    run = bench.run()
    assert (run.state, run.tasks[0].attempts) == ("FAILED", 2)


def test_a_users_mistake_is_not_tried_again(bench):
    bench.job({**bench.notebook("a", "dbutils.widgets.get('missing')"), "max_retries": 5})
    run = bench.run()
    assert (run.state, run.tasks[0].attempts) == ("FAILED", 1)
    assert run.tasks[0].error.startswith("Widget 'missing' does not exist")


def test_a_spark_that_does_not_start_fails_the_task(bench):
    def no_session(_):
        raise RuntimeError("no Java")

    bench.job(bench.notebook("a"))
    run = bench.run(spark_for_task=no_session)
    assert (run.state, run.tasks[0].error) == ("FAILED", "RuntimeError: no Java")


FOR_EVER = "while True:\n    try:\n        sum(range(1000))\n    except Exception:\n        pass"


def test_a_task_over_its_time_is_stopped(bench):
    handler = signal.getsignal(signal.SIGALRM)
    bench.job({**bench.notebook("a", FOR_EVER), "timeout_seconds": 0.2, "max_retries": 3}, bench.notebook("b"))
    run = bench.run()
    assert states(run) == {"a": "TIMEDOUT", "b": "SUCCESS"}
    assert run.state == "FAILED"
    assert run.tasks[0].attempts == 1
    assert run.tasks[0].error == "Task 'a' ran longer than its timeout_seconds, 0.2 s."
    assert "CANCELED" in run.tasks[0].html.read_text()
    assert signal.getsignal(signal.SIGALRM) == handler
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)

    bench.job({**bench.notebook("a", FOR_EVER), "timeout_seconds": 0.1, "max_retries": 1, "retry_on_timeout": True})
    assert bench.run().tasks[0].attempts == 2


WAITING = "import socket\nserver = socket.create_server(('127.0.0.1', 0))\nsocket.create_connection(server.getsockname()).recv(1)"
DEAF_TWICE = f"""
for _ in range(2):
    try:
        {WAITING.replace(chr(10), chr(10) + " " * 8)}
    except BaseException:
        pass
{WAITING}
"""


@pytest.mark.parametrize("code", [WAITING, DEAF_TWICE])
def test_a_task_that_waits_for_a_server_or_swallows_interrupts_is_stopped(bench, monkeypatch, code):
    monkeypatch.setattr(runner, "INTERRUPT_AGAIN_SECONDS", 0.2)
    bench.job({**bench.notebook("a", code), "timeout_seconds": 0.2}, bench.notebook("b"))
    assert states(bench.run()) == {"a": "TIMEDOUT", "b": "SUCCESS"}
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_a_task_that_heeds_no_interrupt_ends_with_the_process_and_its_page_says_so(tmp_path):
    code = (
        "from pathlib import Path\nfrom laptop.jobs import runner\nfrom runner_cases import DEAF, Bench\n"
        f"runner.GRACE_SECONDS = -58  # two seconds after the start\nbench = Bench(Path({str(tmp_path)!r}))\n"
        "bench.job({**bench.notebook('a', DEAF), 'timeout_seconds': 60}, bench.notebook('b'))\nbench.run()"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(str(ROOT / name) for name in ("tests", "benchmarks", "src"))}
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    said = "Task 'a' ran longer than its timeout_seconds and did not end when it was interrupted: the process ends."
    assert (ended.returncode, ended.stderr.splitlines()[-1:]) == (1, [said])
    page = (tmp_path / "runs" / "7" / "index.html").read_text()
    assert re.findall(r'class="state (\w+)"', page) == ["FAILED", "TIMEDOUT", "CANCELED"]


def test_a_job_over_its_time_is_stopped_with_what_it_had_not_begun(bench):
    bench.job({**bench.notebook("a", FOR_EVER), "timeout_seconds": 60, "max_retries": 3}, bench.notebook("b"), timeout_seconds=0.2)
    run = bench.run()
    assert states(run) == {"a": "CANCELED", "b": "CANCELED"}
    assert (run.state, run.error) == ("FAILED", "Job 'main' ran longer than its timeout_seconds, 0.2 s.")
    assert "Job &#39;main&#39; ran longer" in (bench.run_dir / "index.html").read_text()


# ---- Ctrl-C


def test_ctrl_c_cancels_the_run_and_writes_its_pages(bench):
    bench.job(bench.notebook("inner", "print('seen')\nraise KeyboardInterrupt"), bench.notebook("never"), key="called")
    bench.job(bench.notebook("a"), {"task_key": "call", "run_job_task": {"job_id": "called"}, "max_retries": 3}, bench.notebook("b"))
    with pytest.raises(KeyboardInterrupt):
        bench.run()
    page = (bench.run_dir / "index.html").read_text()
    assert re.findall(r'class="state (\w+)"', page) == ["CANCELED", "SUCCESS", "CANCELED", "CANCELED", "CANCELED", "CANCELED"]
    assert "seen" in (bench.run_dir / "call.inner.html").read_text()


# ---- what is refused before anything runs


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"git_source": {}}, r"job 'main': key 'git_source' is not offered on a laptop"),
        ({"parameters": [{"name": "p", "default": "{{job.naem}}"}]}, r"job 'main', parameter 'p': \{\{job.naem\}\}: no such dynamic value"),
        ({"tasks": []}, r"job 'main' has no tasks"),
    ],
)
def test_a_job_that_cannot_run_here_is_refused(bench, settings, message):
    bench.job(bench.notebook("a"))
    bench.jobs["main"] |= settings
    assert re.search(message, bench.refusal())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"disabled": True}, "job 'main', task 'b': key 'disabled' is not offered on a laptop"),
        ({"for_each_task": {}}, "task 'b': for_each_task cannot run on a laptop"),
        ({"spark_python_task": {}, "notebook_task": None}, "task 'b': spark_python_task cannot run on a laptop"),
        ({"condition_task": {}}, "a task needs a task_key and one of"),
        ({"run_if": "SOMETIMES"}, "run_if 'SOMETIMES' is not known"),
        ({"depends_on": [{"task_key": "z"}]}, "depends_on 'z' is no task of this job"),
        ({"depends_on": [{"task_key": "b"}]}, "its depends_on goes round in a circle"),
        ({"depends_on": [{"task_key": "a", "outcome": "true"}]}, "only a condition_task has an outcome"),
        ({"depends_on": [{"task_key": "a", "when": 1}]}, "depends_on: key 'when' is not offered"),
        ({"notebook_task": {"notebook_path": "/nowhere/c"}}, "task 'b': Notebook /nowhere/c does not exist"),
        ({"notebook_task": {"notebook_path": "b", "warehouse_id": "1"}}, "notebook_task: key 'warehouse_id' is not offered"),
        (
            {"notebook_task": {"base_parameters": {"p": "{{tasks.a.values.n}}"}}},
            "p: {{tasks.a.values.n}}: task 'a' does not end before this one",
        ),
        ({"notebook_task": {"base_parameters": {"p": "{{job.parameters.q}}"}}}, "p: {{job.parameters.q}}: no such dynamic value"),
        ({"notebook_task": {"base_parameters": {"p": "{{input}}"}}}, "{{input}}: no such dynamic value"),
    ],
)
def test_a_task_that_cannot_run_here_is_refused(bench, change, message):
    task = bench.notebook("b")
    task |= change
    bench.job(bench.notebook("a"), {key: value for key, value in task.items() if value is not None})
    assert message in bench.refusal()


def test_jobs_that_call_what_is_not_there_or_themselves_are_refused(bench):
    def call(key, **parameters):
        return {"task_key": "call", "run_job_task": {"job_id": key, "job_parameters": parameters}}

    assert bench.refusal("nothing").startswith("Job 'nothing' is not in the bundle")
    bench.job(call("other"))
    assert "job_id 'other' is no job of the bundle" in bench.refusal()
    bench.job(call("main"), key="other")
    assert "runs itself: main → other → main" in bench.refusal()
    bench.job(bench.notebook("a"), key="other")
    bench.job(call("other", p="1"))
    assert "Job 'other' has no parameter 'p'. Its parameters: none." in bench.refusal()


def test_keys_that_mean_nothing_on_a_laptop_are_taken(bench):
    task = bench.notebook("a") | {"job_cluster_key": "c", "libraries": [], "email_notifications": {}, "environment_key": "e"}
    bench.job(task, schedule={}, queue={"enabled": True}, max_concurrent_runs=1, job_clusters=[], health={}, tags={})
    assert bench.run().state == "SUCCESS"


# ---- what a run shows and keeps


def test_a_pipe_gets_a_line_for_each_task_and_the_failing_cell(bench):
    bench.job(
        bench.notebook(
            "a", "print('only on the page')\ndbutils.jobs.taskValues.set('records', 12345)\ndbutils.jobs.taskValues.set('note', 'Healthy')"
        ),
        after({"task_key": "c", "condition_task": {"left": "1", "op": "EQUAL_TO", "right": "2"}}, "a"),
        bench.notebook("b", "secret = dbutils.secrets.get('s', 'KEY')\nraise ValueError('with ' + secret)"),
        after(bench.notebook("d"), "b"),
    )
    bench.run(secrets={"KEY": "hunter22"})
    lines = [re.sub(r"\d+\.\d s", "_ s", line).rstrip() for line in bench.printed.getvalue().splitlines()]
    assert lines == [
        "SUCCESS          a  _ s  12,345 rows  Healthy",
        "SUCCESS          c  _ s  → false",
        "FAILED           b  _ s",
        "",
        "b failed in b.py, line 3:",
        "secret = dbutils.secrets.get('s', 'KEY')",
        "raise ValueError('with ' + secret)",
        "",
        "Traceback (most recent call last):",
        f'  File "{bench.folder.name}/b.py", line 3, in <module>',
        "    raise ValueError('with ' + secret)",
        "ValueError: with [REDACTED]",
        "",
        "UPSTREAM_FAILED  d",
    ]


def test_of_a_users_mistake_only_the_message_is_printed(bench):
    mistake = "from streaming_pipeline.core.errors import PipelineError\nraise PipelineError('KAFKA_TOPIC: there is none.')"
    bench.job(bench.notebook("a", mistake))
    bench.run()
    lines = [re.sub(r"\d+\.\d s", "_ s", line).rstrip() for line in bench.printed.getvalue().splitlines()]
    assert lines == ["FAILED           a  _ s", "a: KAFKA_TOPIC: there is none."]


def test_a_terminal_gets_a_table_that_stays(bench):
    bench.job(bench.notebook("a", "print('only on the page')"), bench.notebook("b", "1 / 0"))
    bench.run(terminal=True)
    printed = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", bench.printed.getvalue())
    assert "b failed in b.py, line 2:" in printed
    assert "only on the page" not in printed
    last_table = printed[printed.rindex("The main job") :]
    assert re.search(r"a +SUCCESS +\d", last_table)
    assert re.search(r"b +FAILED +\d", last_table)


def test_the_run_page_links_what_the_run_left_and_tells_no_secret(bench):
    bench.run_dir.mkdir(parents=True)
    (bench.run_dir / "events").mkdir()
    (bench.run_dir / "silver plan.txt").write_text("plan")
    (bench.run_dir / "events" / "log").write_text("x" * 20_000)
    (bench.run_dir / "spark-events").mkdir()
    (bench.run_dir / "spark-events" / "local-1.zstd.inprogress").write_text("x")
    bench.job(
        bench.notebook("a<b", "dbutils.jobs.taskValues.set('records', 1234)"),
        bench.notebook("c", "1 / 0"),
        parameters=[{"name": "p", "default": "d"}],
    )
    run = bench.run(secrets={"KEY": "hunter22"}, p="hunter22 <x>")
    page = (bench.run_dir / "index.html").read_text()
    assert run.run_dir == bench.run_dir
    for text in [
        "<title>The main job: FAILED</title>",
        '<a href="a%3Cb.html">a&lt;b</a>',
        '<td class="number">1,234</td>',
        "ZeroDivisionError: division by zero",
        '<a href="silver%20plan.txt">silver plan.txt</a>',
        '<a href="events/log">events/log</a></td><td class="number">20 kB</td>',
        '<a href="spark-events">spark-events</a></td><td class="number">folder</td>',
        "<code>[REDACTED] &lt;x&gt;</code>",
        '<html lang="en">',
        "prefers-color-scheme: dark",
    ]:
        assert text in page
    assert not re.search(r"https?://|<script|hunter22", page)
    assert str(bench.folder) not in page
    assert '<a href="index.html">' in (bench.run_dir / "c.html").read_text()
