"""A task is declared once, and its notebook, its widgets, its log and what it leaves for others follow."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from laptop.jobs.dbutils import DBUtils
from streaming_pipeline import tasks
from streaming_pipeline.core.errors import UsageError
from streaming_pipeline.core.settings import Settings
from streaming_pipeline.tasks import SETTINGS, TASKS, Parameter, Task, TaskResult, run

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
NO_SPARK = SimpleNamespace()
SECRETS = {"KAFKA_BOOTSTRAP_SERVERS": "host:9093", "SMTP_PASSWORD": "mail"}
OWN = (Parameter("dry_run", False, ""), Parameter("count", 3, ""), Parameter("version", "", ""))


@pytest.fixture
def seen(monkeypatch):
    """What a task was called with: the last `Context`."""
    contexts = []

    def call(context):
        contexts.append(context)
        return TaskResult(records=0, note="done", value="shown", left={"exists": "true"})

    for name, more in (("a_task", {}), ("with_kafka", {"secrets": ("KAFKA_",)}), ("the_last", {"must_run": True})):
        task = Task(name, call, ("catalog", "secret_scope", "schema"), own=OWN, is_logged=False, **more)
        monkeypatch.setitem(tasks.TASKS, name, task)
    return contexts


def dbutils(values=None, **parameters) -> DBUtils:
    return DBUtils(parameters=parameters, task_key="t", task_values={} if values is None else values, secrets=SECRETS)


def test_every_notebook_is_a_task_and_calls_it_by_its_name():
    assert {file.stem for file in NOTEBOOKS.glob("*.py")} - {"_library"} == set(TASKS)
    for name in TASKS:
        text = (NOTEBOOKS / f"{name}.py").read_text()
        assert re.findall(r'run\("(\w+)", spark, dbutils\)', text) == [name]
        code = [line for line in text.splitlines() if line and not line.startswith("#")]
        assert len(code) <= 8 and not any(line.startswith(("def ", "dbutils.")) for line in code)


def test_a_parameter_means_one_thing_wherever_it_is_taken():
    names = {one.name for task in TASKS.values() for one in task.own}
    assert not names & set(SETTINGS)
    assert all(one.meaning for task in TASKS.values() for one in task.parameters)


def test_the_defaults_of_the_widgets_are_those_of_the_settings(seen):
    run("a_task", NO_SPARK, dbutils())
    [context] = seen
    assert context.settings == Settings(catalog="main")
    assert context.own == {"dry_run": False, "count": 3, "version": ""}
    for name, parameter in SETTINGS.items():
        if name != "catalog":
            assert Settings.from_parameters({"catalog": "main", name: parameter.text}) == Settings(catalog="main")


def test_what_the_job_gives_wins_and_an_empty_text_means_the_default(seen):
    run("a_task", NO_SPARK, dbutils(schema="mine", dry_run=" TRUE ", count=" ", version="7"))
    [context] = seen
    assert context.settings.schema == "mine"
    assert context.own == {"dry_run": True, "count": 3, "version": "7"}


@pytest.mark.parametrize(("name", "text"), [("dry_run", "maybe"), ("count", "many"), ("schema", "no schema")])
def test_a_parameter_that_cannot_be_used_is_named_before_the_task_begins(seen, name, text):
    with pytest.raises(UsageError, match=f"'{name}' is '{text}'"):
        run("a_task", NO_SPARK, dbutils(**{name: text}))
    assert not seen


def test_a_parameter_of_another_task_is_refused_too_but_by_the_task_that_must_tell_of_it(seen):
    with pytest.raises(UsageError, match="'contamination' is 'abc'"):
        run("a_task", NO_SPARK, dbutils(contamination="abc"))
    assert not seen
    run("the_last", NO_SPARK, dbutils(contamination="abc"))
    assert seen
    assert {task.name for task in TASKS.values() if task.must_run} - {"the_last"} == {"05_send_alerts"}


def test_a_task_gets_the_secrets_that_it_cannot_work_without_and_reads_others_itself(seen):
    run("a_task", NO_SPARK, dbutils())
    run("with_kafka", NO_SPARK, dbutils())
    assert [context.settings.secrets for context in seen] == [{}, {"KAFKA_BOOTSTRAP_SERVERS": "host:9093"}]
    assert seen[0].read_secrets(("SMTP_",)) == {"SMTP_PASSWORD": "mail"}


def test_it_leaves_its_records_its_note_and_more_for_later_tasks(seen):
    values = {}
    assert run("a_task", NO_SPARK, dbutils(values)) == "shown"
    assert values == {"t": {"records": 0, "note": "done", "exists": "true"}}
