"""What a job of the bundle says: which keys it may have here, the order of its tasks, what `run_if` decides, what `{{…}}` stands for.

Only reads; running is `runner`'s part. Every key is honoured, or is listed here as meaning nothing on a laptop, or is refused.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from laptop.bundle.load import Bundle
from laptop.bundle.yaml_files import place
from laptop.jobs.notebook_source import check_notebook
from streaming_pipeline.core.errors import UsageError


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_JOB_HONOURED = _words("name parameters tasks timeout_seconds")
# Where, when and as whom a job runs, and who is told: the laptop runs it here, now, as its user, and shows it on the screen.
_JOB_MEANS_NOTHING_HERE = _words(
    """budget_policy_id continuous description email_notifications environments health job_clusters lifecycle max_concurrent_runs
    notification_settings performance_target permissions queue run_as schedule tags trigger webhook_notifications"""
)
_TASK_HONOURED = _words(
    """condition_task depends_on max_retries min_retry_interval_millis notebook_task retry_on_timeout run_if run_job_task task_key
    timeout_seconds"""
)
_TASK_MEANS_NOTHING_HERE = _words(
    """description disable_auto_optimization email_notifications environment_key existing_cluster_id health job_cluster_key libraries
    new_cluster notification_settings webhook_notifications"""
)
_INNER_HONOURED = {
    "notebook_task": _words("base_parameters notebook_path"),
    "condition_task": _words("left op right"),
    "run_job_task": _words("job_id job_parameters"),
}
_INNER_MEANS_NOTHING_HERE = {"notebook_task": _words("source")}

_RUN_IF: dict[str, Callable[[list[bool], list[bool]], bool]] = {
    # (which dependencies succeeded, which failed) → run?
    "ALL_SUCCESS": lambda succeeded, failed: all(succeeded),
    "AT_LEAST_ONE_SUCCESS": lambda succeeded, failed: any(succeeded),
    "NONE_FAILED": lambda succeeded, failed: not any(failed),
    "ALL_DONE": lambda succeeded, failed: True,
    "AT_LEAST_ONE_FAILED": lambda succeeded, failed: any(failed),
    "ALL_FAILED": lambda succeeded, failed: all(failed),
}
FAILED_STATES = frozenset({"FAILED", "TIMEDOUT", "UPSTREAM_FAILED", "CANCELED"})

_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "GREATER_THAN": lambda left, right: left > right,
    "GREATER_THAN_OR_EQUAL": lambda left, right: left >= right,
    "LESS_THAN": lambda left, right: left < right,
    "LESS_THAN_OR_EQUAL": lambda left, right: left <= right,
}
_TEXT_OPERATORS = ("EQUAL_TO", "NOT_EQUAL")

_REFERENCE = re.compile(r"\{\{\s*([^{}]+?)\s*\}\}")
_START_TIME: dict[str, Callable[[datetime], Any]] = {
    "iso_date": lambda at: at.date().isoformat(),
    "iso_datetime": lambda at: at.strftime("%Y-%m-%dT%H:%M:%S"),
    "iso_weekday": lambda at: at.isoweekday(),
    "is_weekday": lambda at: str(at.isoweekday() < 6).lower(),
    "year": lambda at: at.year,
    "month": lambda at: at.month,
    "day": lambda at: at.day,
    "hour": lambda at: at.hour,
    "minute": lambda at: at.minute,
    "second": lambda at: at.second,
    "timestamp_ms": lambda at: int(at.timestamp() * 1000),
}


# --------------------------------------------------------------------------------------------------------------- checking


def check_job(bundle: Bundle, job_key: str, within: tuple[str, ...] = ()) -> None:
    """Read a job, the jobs that it runs and their notebooks, without running anything.

    Raises `UsageError` naming file, job, task and key for whatever could not run here, is misspelt, missing or circular.
    """
    if job_key in within:
        raise UsageError(f"Job {job_key!r} runs itself: {' → '.join((*within, job_key))}.")
    job = bundle.job(job_key)
    where = f"{place(job)}: job {job_key!r}"
    _check_keys(job, _JOB_HONOURED, _JOB_MEANS_NOTHING_HERE, where)
    if not job.get("tasks"):
        raise UsageError(f"{where} has no tasks.")
    for parameter in job.get("parameters") or []:
        _check_references(parameter.get("default"), f"{where}, parameter {parameter.get('name')!r}", set(), set(), in_task=False)
    tasks = {str(task.get("task_key")): task for task in job["tasks"]}
    for task in job["tasks"]:
        _check_task(bundle, job_key, job, task, tasks, within)


def _check_task(
    bundle: Bundle, job_key: str, job: Mapping[str, Any], task: Mapping[str, Any], tasks: Mapping[str, Any], within: tuple[str, ...]
) -> None:
    where = f"{place(task)}: job {job_key!r}, task {task.get('task_key')!r}"
    if unsupported := [key for key in task if key.endswith("_task") and key not in _INNER_HONOURED]:
        raise UsageError(f"{where}: {unsupported[0]} cannot run on a laptop; {', '.join(_INNER_HONOURED)} can.")
    _check_keys(task, _TASK_HONOURED, _TASK_MEANS_NOTHING_HERE, where)
    kinds = [key for key in _INNER_HONOURED if key in task]
    if "task_key" not in task or len(kinds) != 1:
        raise UsageError(f"{where}: a task needs a task_key and one of {', '.join(_INNER_HONOURED)}.")
    kind = kinds[0]
    inner = task[kind]
    _check_keys(inner, _INNER_HONOURED[kind], _INNER_MEANS_NOTHING_HERE.get(kind, _words("")), f"{where}, {kind}")
    if task.get("run_if", "ALL_SUCCESS") not in _RUN_IF:
        raise UsageError(f"{where}: run_if {task['run_if']!r} is not known. Known: {', '.join(_RUN_IF)}.")
    for dependency in task.get("depends_on") or []:
        _check_keys(dependency, _words("outcome task_key"), _words(""), f"{where}, depends_on")
        needed = tasks.get(dependency.get("task_key"))
        if needed is None:
            raise UsageError(f"{where}: depends_on {dependency.get('task_key')!r} is no task of this job.")
        if "outcome" in dependency and ("condition_task" not in needed or _text(dependency["outcome"]) not in ("true", "false")):
            raise UsageError(f"{where}: depends_on {dependency['task_key']!r}: only a condition_task has an outcome, true or false.")
    upstream = _upstream(task, tasks, where)
    declared = {parameter["name"] for parameter in job.get("parameters") or []}
    _check_references(inner, where, declared, upstream, in_task=True)

    if kind == "notebook_task":
        if "notebook_path" not in inner:
            raise UsageError(f"{where}: notebook_task needs a notebook_path.")
        try:
            check_notebook(Path(inner["notebook_path"]))
        except UsageError as error:
            raise UsageError(f"{where}: {error}") from None
    elif kind == "condition_task":
        if missing := _INNER_HONOURED[kind] - set(inner):
            raise UsageError(f"{where}: condition_task needs {' and '.join(sorted(missing))}.")
        if inner["op"] not in (*_TEXT_OPERATORS, *_OPERATORS):
            raise UsageError(f"{where}: op {inner['op']!r} is not known. Known: {', '.join((*_TEXT_OPERATORS, *_OPERATORS))}.")
    else:
        called = str(inner.get("job_id"))
        if called not in bundle.jobs:
            raise UsageError(f"{where}: job_id {called!r} is no job of the bundle: write ${{resources.jobs.<key>.id}}.")
        check_job(bundle, called, (*within, job_key))
        check_parameters(bundle.job(called), called, inner.get("job_parameters") or {}, f"{where}: ")


def check_parameters(job: Mapping[str, Any], job_key: str, given: Mapping[str, Any], where: str = "") -> None:
    """Raise `UsageError` listing the job's parameters if `given` has one that the job does not declare."""
    declared = [parameter["name"] for parameter in job.get("parameters") or []]
    for name in given:
        if name not in declared:
            raise UsageError(f"{where}Job {job_key!r} has no parameter {name!r}. Its parameters: {', '.join(declared) or 'none'}.")


def _check_keys(mapping: Any, honoured: frozenset[str], meaningless: frozenset[str], where: str) -> None:
    if not isinstance(mapping, Mapping):
        raise UsageError(f"{where} must be a mapping of keys, not {mapping!r}.")
    for key in mapping:
        if key not in honoured and key not in meaningless:
            raise UsageError(f"{where}: key {str(key)!r} is not offered on a laptop: take it out, or run this in a workspace.")


def _upstream(task: Mapping[str, Any], tasks: Mapping[str, Any], where: str) -> set[str]:
    """The keys of all tasks that end before `task` starts. Raises `UsageError` when it is one of them itself."""
    found: set[str] = set()
    waiting = [task]
    while waiting:
        for dependency in waiting.pop().get("depends_on") or []:
            key = dependency["task_key"]
            if key == task["task_key"]:
                raise UsageError(f"{where}: its depends_on goes round in a circle.")
            if key not in found and key in tasks:
                found.add(key)
                waiting.append(tasks[key])
    return found


def _check_references(value: Any, where: str, parameters: set[str], upstream: set[str], *, in_task: bool) -> None:
    if isinstance(value, Mapping):
        for key, part in value.items():
            _check_references(part, f"{where}, {key}", parameters, upstream, in_task=in_task)
    elif isinstance(value, str):
        for reference in _REFERENCE.findall(value):
            match _parts(reference):
                case ["job", "id" | "name" | "run_id"]:
                    continue
                case ["job", "start_time", name] if name in _START_TIME:
                    continue
                case ["workspace", "url"]:
                    continue
                case ["job", "parameters", name] if name in parameters:
                    continue
                case ["task", "name" | "run_id" | "execution_count"] if in_task:
                    continue
                case ["tasks", key, "result_state" | "run_id" | "execution_count"] | ["tasks", key, "values", _] if key in upstream:
                    continue
                case ["tasks", key, *_] if key not in upstream:
                    reason = f"task {key!r} does not end before this one: put it into depends_on"
                case _:
                    reason = "no such dynamic value is offered on a laptop"
            raise UsageError(f"{where}: {{{{{reference}}}}}: {reason}.")


# ---------------------------------------------------------------------------------------------------------------- deciding


def ordered(tasks: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """The tasks of a checked job, each after all that it depends on, else as they are declared."""
    waiting, done = list(tasks), set()
    while waiting:
        ready = next(task for task in waiting if all(needed["task_key"] in done for needed in task.get("depends_on") or []))
        waiting.remove(ready)
        done.add(ready["task_key"])
        yield ready


def leaves(tasks: Sequence[Mapping[str, Any]]) -> set[str]:
    """The keys of the tasks that no other task depends on; they decide the state of a job."""
    return {task["task_key"] for task in tasks} - {needed["task_key"] for task in tasks for needed in task.get("depends_on") or []}


def decide(task: Mapping[str, Any], states: Mapping[str, str], outcomes: Mapping[str, str]) -> str:
    """RUN, EXCLUDED or UPSTREAM_FAILED, from the states of the tasks before and the outcomes of condition tasks.

    As in a workspace: a dependency on the other outcome of a condition counts as excluded; a task whose dependencies were all
    excluded is excluded whatever its `run_if`; `run_if`s that wait for a failure exclude the task when there was none.
    """
    ends = []
    for needed in task.get("depends_on") or []:
        key, state = needed["task_key"], states[needed["task_key"]]
        if state == "SUCCESS" and "outcome" in needed and _text(needed["outcome"]) != outcomes.get(key):
            state = "EXCLUDED"
        ends.append(state)
    if not ends:
        return "RUN"
    if all(end == "EXCLUDED" for end in ends):
        return "EXCLUDED"
    failed = [end in FAILED_STATES for end in ends]
    run_if = task.get("run_if", "ALL_SUCCESS")
    if _RUN_IF[run_if]([end == "SUCCESS" for end in ends], failed):
        return "RUN"
    return "UPSTREAM_FAILED" if any(failed) and run_if not in ("AT_LEAST_ONE_FAILED", "ALL_FAILED") else "EXCLUDED"


def compare(left: str, operator: str, right: str) -> bool:
    """The condition of a `condition_task`: equality compares texts, order compares numbers. Raises `UsageError` for no number."""
    if operator in _TEXT_OPERATORS:
        return (left == right) == (operator == "EQUAL_TO")
    try:
        return _OPERATORS[operator](float(left), float(right))
    except ValueError:
        raise UsageError(f"condition {left!r} {operator} {right!r}: both sides must be numbers.") from None


# ----------------------------------------------------------------------------------------------------------- dynamic values


@dataclass
class DynamicValues:
    """What `{{…}}` stands for in one job run. `task_values`, `states` and `attempts` are by task key."""

    job_id: str
    job_name: str
    run_id: str
    started: datetime
    parameters: dict[str, str] = field(default_factory=dict)
    task_values: dict[str, dict[str, Any]] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)
    attempts: dict[str, int] = field(default_factory=dict)

    def fill(self, value: Any, task_key: str = "") -> str:
        """A value of the job's YAML as text, its references replaced. Raises `UsageError` for a task value that was never set."""
        return _REFERENCE.sub(lambda found: _text(self._look_up(_parts(found[1]), task_key)), _text(value))

    def task_run_id(self, task_key: str) -> str:
        return f"{self.run_id}-{task_key}"

    def _look_up(self, parts: list[str], task_key: str) -> Any:
        match parts:
            case ["job", "id"]:
                return self.job_id
            case ["job", "name"]:
                return self.job_name
            case ["job", "run_id"]:
                return self.run_id
            case ["job", "start_time", name]:
                return _START_TIME[name](self.started)
            case ["workspace", "url"]:
                return ""  # there is none
            case ["job", "parameters", name]:
                return self.parameters[name]
            case ["task", "name"]:
                return task_key
            case ["task", "run_id"]:
                return self.task_run_id(task_key)
            case ["task", "execution_count"]:
                return self.attempts.get(task_key, 1)
            case ["tasks", key, "run_id"]:
                return self.task_run_id(key)
            case ["tasks", key, "execution_count"]:
                return self.attempts.get(key, 0)
            case ["tasks", key, "result_state"]:
                return self.states[key].lower()
            case ["tasks", key, "values", name]:
                values = self.task_values.get(key, {})
                if name not in values:
                    raise UsageError(
                        f"{{{{{'.'.join(parts)}}}}} has no value: task {key!r} ended as {self.states[key]} and never set {name!r}."
                    )
                return values[name]
        raise AssertionError(parts)  # check_job lets nothing else through


def _parts(reference: str) -> list[str]:
    """`tasks.`my-task`.values.n` → its parts; backticks guard names with other characters than letters, digits and _."""
    return [part.strip("`") for part in re.findall(r"`[^`]*`|[^.`]+", reference)]


def _text(value: Any) -> str:
    """A YAML or JSON value as a job passes it on: texts as they are, anything else as JSON."""
    return value if isinstance(value, str) else "" if value is None else json.dumps(value)
