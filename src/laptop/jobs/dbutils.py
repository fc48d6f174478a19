"""The part of Databricks' `dbutils` that notebooks use most, for one task of a run on a laptop.

Whatever else a notebook asks for is an error that names it: a notebook never goes on with something that silently did nothing.
"""

import html
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from streaming_pipeline.core.errors import UsageError

MAX_TASK_VALUE_BYTES = 48 * 1024
"""A workspace refuses a larger task value, so the laptop does too."""

_REDACTED = "[REDACTED]"
_SHORTEST_REDACTED = 4
# Also one that is cut off, and one in a text of JSON or Python, whose ends of lines are two characters.
_PRIVATE_KEY = re.compile(r"-----BEGIN ([A-Z ]*PRIVATE KEY)-----(?:[A-Za-z0-9+/=\s]|\\+[nr])*(?:-----END \1-----)?")


class NotOfferedError(UsageError, AttributeError):
    """Something of `dbutils` that only a workspace has; an `AttributeError` too, so that `hasattr` answers False."""


class NotebookExit(BaseException):
    """Raised by `dbutils.notebook.exit`; a `BaseException`, so that a notebook's `except Exception` does not swallow it."""

    def __init__(self, value: str) -> None:
        super().__init__(value)
        self.value = value


class _Group:
    _path = "dbutils"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # probes of pickle, IPython and inspect
            raise AttributeError(name)
        raise NotOfferedError(f"{self._path}.{name} is not offered on a laptop.")


class Widgets(_Group):
    """`dbutils.widgets`: what the job passes wins over what the notebook declares."""

    _path = "dbutils.widgets"

    def __init__(self, parameters: Mapping[str, str]) -> None:
        self._parameters = dict(parameters)
        self._defaults: dict[str, str] = {}

    def text(self, name: str, defaultValue: str, label: str | None = None) -> None:
        self._defaults[name] = str(defaultValue)

    def get(self, name: str) -> str:
        try:
            return self.getAll()[name]
        except KeyError:
            raise UsageError(f"Widget {name!r} does not exist: the notebook declares none, and no parameter of that name came.") from None

    def getAll(self) -> dict[str, str]:
        return self._defaults | self._parameters


class TaskValues(_Group):
    """`dbutils.jobs.taskValues`: small JSON values that later tasks of the same job run can read."""

    _path = "dbutils.jobs.taskValues"

    def __init__(self, task_key: str, values: dict[str, dict[str, Any]]) -> None:
        self._task_key = task_key
        self._values = values

    def set(self, key: str, value: Any) -> None:
        try:
            text = json.dumps(value)
        except TypeError as error:
            raise UsageError(f"Task value {key!r} of task {self._task_key!r} cannot be kept as JSON: {error}.") from None
        if len(text) > MAX_TASK_VALUE_BYTES:
            raise UsageError(f"Task value {key!r} of task {self._task_key!r} has {len(text)} bytes; at most 48 KiB are allowed.")
        self._values.setdefault(self._task_key, {})[key] = json.loads(text)

    def get(self, taskKey: str, key: str, default: Any = None, debugValue: Any = None) -> Any:
        values = self._values.get(taskKey, {})
        if key in values:
            return values[key]
        if default is None:
            raise UsageError(f"Task value {key!r} of task {taskKey!r} is not set: that task did not run, or never set it.")
        return default


class Jobs(_Group):
    _path = "dbutils.jobs"

    def __init__(self, task_values: TaskValues) -> None:
        self.taskValues = task_values


class Notebook(_Group):
    _path = "dbutils.notebook"

    def exit(self, value: Any = "") -> None:
        raise NotebookExit(str(value))


@dataclass(frozen=True)
class SecretMetadata:
    key: str


class Secrets(_Group):
    """`dbutils.secrets`: the runner's secrets, whatever the scope is called."""

    _path = "dbutils.secrets"

    def __init__(self, secrets: Mapping[str, str]) -> None:
        self._secrets = dict(secrets)

    def get(self, scope: str, key: str) -> str:
        if key not in self._secrets:
            raise UsageError(f"Secret {key!r} of scope {scope!r} does not exist: put {key}=… into .env.")
        return self._secrets[key]

    def list(self, scope: str) -> list[SecretMetadata]:
        return [SecretMetadata(key) for key in sorted(self._secrets)]


class DBUtils(_Group):
    """`dbutils` of one task.

    `parameters`: what the job passes to the task. `task_values`: the values of all tasks of the job run so far, by task key; this
    task's own are added to it. `secrets`: what every secret scope holds.
    """

    def __init__(
        self,
        *,
        parameters: Mapping[str, str] | None = None,
        task_key: str = "",
        task_values: dict[str, dict[str, Any]] | None = None,
        secrets: Mapping[str, str] | None = None,
    ) -> None:
        self.widgets = Widgets(parameters or {})
        self.jobs = Jobs(TaskValues(task_key, {} if task_values is None else task_values))
        self.notebook = Notebook()
        self.secrets = Secrets(secrets or {})


def redactor(secrets: Mapping[str, str]) -> Callable[[str], str]:
    """A function that puts [REDACTED] for every secret value of four or more characters in a text, as a workspace does.

    A value is also found as it stands in HTML, in a Python literal and in JSON. So is any private key in PEM, which no secret holds:
    the settings name its file.
    """
    forms = {
        form
        for value in secrets.values()
        if len(value) >= _SHORTEST_REDACTED
        for form in (value, html.escape(value), html.escape(value, quote=False), repr(value)[1:-1], json.dumps(value)[1:-1])
    }
    longest_first = sorted(forms, key=lambda form: (-len(form), form))

    def redact(text: str) -> str:
        for form in longest_first:
            text = text.replace(form, _REDACTED)
        return _PRIVATE_KEY.sub(_REDACTED, text)

    return redact
