"""A file of a bundle → nested mappings whose keys know their place, and one such mapping on top of another."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import yaml

from streaming_pipeline.core.config_files import UniqueKeys, bounded_text
from streaming_pipeline.core.errors import UsageError

# The item of such a list is known by this field; overrides of the same item are merged into it.
LIST_KEYS = {"tasks": "task_key", "job_clusters": "job_cluster_key", "parameters": "name", "environments": "environment_key"}

_LARGEST = 100_000
"""Values of a file with its aliases written out."""


def place(mapping: Mapping[str, Any]) -> str:
    """Where a mapping of a loaded bundle (a job, a task, …) was written, as `resources/x.job.yml:12`; for error messages."""
    keys = [key for key in mapping if isinstance(key, Key)]
    named = [key for key in keys if key in LIST_KEYS.values()]  # the others may have come in by `<<` or an override
    return next((key.place for key in named + keys), "databricks.yml")


class Key(str):
    """A mapping's key that remembers the file and line it stands in; it stays with its value through every merge."""

    place = "databricks.yml"


def fail(key: str, message: str) -> NoReturn:
    """Raise `UsageError` with the place of `key`, if it has one."""
    raise UsageError(f"{key.place}: {message}" if isinstance(key, Key) else message)


def mapping_under(parent: dict[str, Any], name: str) -> dict[str, Any]:
    """The mapping under `name`, empty if there is none."""
    value = parent.get(name)
    if value is not None and not isinstance(value, dict):
        fail(next(key for key in parent if key == name), f"{name!r} must be a mapping of keys, not {value!r}.")
    return value or {}


def without(parent: dict[str, Any], *names: str) -> dict[str, Any]:
    """The mapping without these keys."""
    return {key: value for key, value in parent.items() if key not in names}


class _PlacedLoader(UniqueKeys):
    """YAML with keys that know their place; remembers which nodes carry an anchor."""

    KEY_IS_NO_TEXT = "a key must be a plain text"

    def compose_node(self, parent: Any, index: Any) -> yaml.Node:
        anchor = getattr(self.peek_event(), "anchor", None)
        node = super().compose_node(parent, index)
        if anchor:
            node.anchored = True
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[str, Any]:
        self.flatten_mapping(node)  # `<<: *anchor`
        mapping = {}
        for key_node, value_node in node.value:
            key = Key(key_node.value)
            key.place = f"{key_node.start_mark.name}:{key_node.start_mark.line + 1}"
            mapping.pop(key, None)  # what is merged in by `<<` comes first and gives way
            mapping[key] = self.construct_object(value_node, deep=deep)
        return mapping


def _is_anchor_block(node: yaml.Node) -> bool:
    """A block that only holds YAML anchors for use elsewhere; a deployment lets it stand at the top under any name."""
    if getattr(node, "anchored", False):
        return True
    if not isinstance(node, yaml.CollectionNode) or not node.value:
        return False
    return all(_is_anchor_block(part[1] if isinstance(part, tuple) else part) for part in node.value)


def _written_out(node: yaml.Node, known: dict[int, int]) -> int:
    """How many values a node has once each alias in it is written out; endless recursion for one that holds itself."""
    if id(node) not in known:
        parts = node.value if isinstance(node, yaml.CollectionNode) else []
        parts = [part for pair in parts for part in (pair if isinstance(pair, tuple) else (pair,))]
        known[id(node)] = 1 + sum(_written_out(part, known) for part in parts)
    return known[id(node)]


def read_yaml(path: Path, shown: str) -> tuple[dict[str, Any], set[str]]:
    """One file, called `shown` in messages, as nested mappings; and which keys of its top hold nothing but anchors for use elsewhere."""
    try:
        loader = _PlacedLoader(bounded_text(path, shown))
        loader.name = shown
        node = loader.get_single_node()
        if node is None:
            return {}, set()
        if not isinstance(node, yaml.MappingNode):
            raise UsageError(f"{shown}: expected keys such as 'resources:' at the top.")
        if _written_out(node, {}) > _LARGEST:
            raise UsageError(f"{shown}: its aliases (*name) repeat so much that it has more than {_LARGEST:,} values: write fewer of them.")
        return loader.construct_document(node), {key.value for key, value in node.value if _is_anchor_block(value)}
    except OSError as error:
        raise UsageError(f"{shown} cannot be read ({error.strerror}): run this in the project's folder, where databricks.yml is.") from None
    except UnicodeDecodeError:
        raise UsageError(f"{shown} is not UTF-8 text.") from None
    except yaml.MarkedYAMLError as error:
        line = (error.problem_mark or error.context_mark).line + 1
        raise UsageError(f"{shown}:{line}: not valid YAML: {error.problem}.") from None
    except yaml.YAMLError as error:
        raise UsageError(f"{shown}: not valid YAML: {str(error).splitlines()[0]}.") from None
    except RecursionError:
        raise UsageError(f"{shown}: lists and mappings are nested too deep, or one holds itself.") from None


def merge(base: Any, over: Any, key: str = "") -> Any:
    """`over` on top of `base`: mappings merge, lists are joined (items with the same task_key and such merge), the rest is replaced."""
    if over is None or base is None:  # an empty override deletes nothing
        return base if over is None else over
    if isinstance(base, dict) and isinstance(over, dict):
        merged = dict(base)
        for name, value in over.items():
            part = merge(merged.get(name), value, name)
            if part is value and merged.get(name) != value:  # with a new value comes the key that knows where it stands
                merged.pop(name, None)
            merged[name] = part
        return merged
    if isinstance(base, list) and isinstance(over, list):
        if key not in LIST_KEYS:
            return base + over
        items = by_key(base, key)
        for name, item in by_key(over, key).items():
            items[name] = merge(items.get(name), item)
        return list(items.values())
    if isinstance(base, dict | list) or isinstance(over, dict | list):
        fail(key, f"{key!r} cannot be merged: one place has a {shape(base)}, the other a {shape(over)}.")
    return over


def shape(value: Any) -> str:
    """What kind of YAML a value is, in words."""
    return "mapping" if isinstance(value, dict) else "list" if isinstance(value, list) else "single value"


def by_key(items: list[Any], list_name: str) -> dict[str, Any]:
    """The items of a list such as `tasks` by their `task_key`."""
    field = LIST_KEYS[list_name]
    found: dict[str, Any] = {}
    for item in items:
        if not isinstance(item, dict) or not isinstance(item.get(field), str):
            fail(next(iter(item), list_name) if isinstance(item, dict) else list_name, f"an item of {list_name!r} has no {field!r}.")
        if item[field] in found:
            raise UsageError(f"{place(item)}: {field} {item[field]!r} is given twice.")
        found[item[field]] = item
    return found
