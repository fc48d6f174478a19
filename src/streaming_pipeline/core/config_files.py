"""Reading what people edit in `config/`: YAML without traps, and errors that name file and key."""

import stat
from pathlib import Path
from typing import Any, NoReturn

import yaml

from streaming_pipeline.core.errors import UsageError

LARGEST = 200_000
"""Characters of a file. No file that people edit comes near it, and this one takes seconds to parse."""


def bounded_text(path: Path, shown: str) -> str:
    """The text of a file that people edit, called `shown` in messages. Raises `UsageError` for a huge one before it is read to its end,
    and for a pipe, whose writer would be waited for.
    """
    kind = path.stat().st_mode
    if not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):
        raise UsageError(f"{shown} is a pipe or a device, and must be a file.")
    with path.open(encoding="utf-8") as file:
        text = file.read(LARGEST + 1)
    if len(text) > LARGEST:
        raise UsageError(f"{shown} has more than {LARGEST:,} characters: that is no file to be edited. Is it the right one?")
    return text


def read_text(path: str | Path, what: str) -> str:
    """The text of a file of `config_dir`; raises `UsageError` saying that `what` ("the event contract") cannot be read."""
    try:
        return bounded_text(Path(path), str(path))
    except OSError as error:
        raise UsageError(f"{path}: {what} cannot be read ({error.strerror}). Check the parameter config_dir.") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path}: {what} is not UTF-8 text.") from None


def parse_yaml(text: str, source: str) -> tuple[Any, str]:
    """What `text` holds, and the same written in one way whatever its layout; raises `UsageError` naming `source` and line."""
    try:
        document = yaml.load(text, _Loader)
        return document, yaml.safe_dump(document, sort_keys=True)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        raise UsageError(f"{source}{where}: not valid YAML ({getattr(error, 'problem', None) or 'unreadable'}).") from None
    except RecursionError:
        raise UsageError(f"{source}: lists and mappings are nested too deep.") from None


class Checker:
    """Refuses what a file may not hold, naming it and the key."""

    def __init__(self, source: str) -> None:
        self.source = source

    def fail(self, key: str, problem: str) -> NoReturn:
        """Raise `UsageError` naming file, key and problem."""
        raise UsageError(f"{self.source}: {key}: {problem}.")

    def mapping(self, value: Any, key: str, required: set[str], known: set[str]) -> dict[str, Any]:
        """`value` if it is a mapping with these keys; `UsageError` otherwise."""
        if not isinstance(value, dict):
            self.fail(key, "must be a mapping of keys to values")
        for name in value:
            if name not in known:
                self.fail(key, f"unknown key {name!r}; known keys: {', '.join(sorted(known))}")
        for name in sorted(required):
            if value.get(name) is None:
                self.fail(key, f"{name!r} is missing")
        return value


class UniqueKeys(yaml.SafeLoader):  # type: ignore[misc]  # PyYAML has no types
    """YAML without a key given twice, of which the last would win."""

    KEY_IS_NO_TEXT = "a key must be a text, not a list or mapping"

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem=self.KEY_IS_NO_TEXT, problem_mark=key.start_mark)
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"key {key.value!r} is given twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return node


class _Loader(UniqueKeys):
    """YAML without what hides a mistake or grows without end."""

    def compose_node(self, parent: Any, index: Any) -> yaml.Node:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            raise yaml.MarkedYAMLError(problem=f"write *{event.anchor} out, aliases are not supported", problem_mark=event.start_mark)
        return super().compose_node(parent, index)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            value = super().construct_object(node, deep)
            if isinstance(value, int):
                str(value)  # Python refuses thousands of digits, which no message could show then
            return value
        except (ValueError, LookupError, AttributeError):  # what Python says of 2026-02-30 or `!!bool perhaps`
            raise yaml.MarkedYAMLError(problem=f"{str(node.value)[:40]!r} is no such value", problem_mark=node.start_mark) from None
