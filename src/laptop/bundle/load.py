"""databricks.yml and the files it includes → the resources of one target, every reference resolved, without a workspace.

It does what `databricks bundle` does, in the same order: includes, the target's overrides, variables, references. It is
stricter where a slip would pass in silence: a key that is not known, a key given twice, an include that finds nothing.
"""

import getpass
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from glob import glob
from pathlib import Path, PurePosixPath
from typing import Any

from laptop.bundle.keys import KEYS, REQUIRED, check_resources, refuse_unknown, without_empty
from laptop.bundle.yaml_files import fail, mapping_under, merge, read_yaml, shape, without
from streaming_pipeline.core.errors import UsageError

LOCAL_CATALOG = "spark_catalog"

# Relative paths under these keys count from the file that they stand in.
_FILE_KEYS = {"notebook_path", "python_file", "file_path"}
_DOTTED_FILE_KEYS = {"whl", "jar", "requirements", "dependencies"}  # here a name without ./ or ../ is a package or a workspace path

_REFERENCE = re.compile(r"\$\{([A-Za-z][\w-]*(?:(?:\.[\w-]+)|(?:\[\d+\]))*)\}")

_MOST_REFERENCES = 20_000
_LONGEST_TEXT = 100_000
"""References to references to references grow without end; the bundle as shipped follows some hundreds."""


@dataclass(frozen=True)
class Bundle:
    """One target of a bundle. `config` is all of it (bundle, workspace, run_as, resources, …) with no `${…}` left."""

    root: Path
    target: str
    config: dict[str, Any]

    @property
    def resources(self) -> dict[str, dict[str, Any]]:
        """Kind → key → resource, as `{"jobs": {"table_maintenance": {…}}, "volumes": {…}}`."""
        return self.config["resources"]

    @property
    def jobs(self) -> dict[str, Any]:
        """Key → job settings, in the Jobs API's shape."""
        return self.resources.get("jobs", {})

    def job(self, key: str) -> dict[str, Any]:
        """The settings of one job; raises `UsageError` listing the jobs that there are."""
        if key not in self.jobs:
            raise UsageError(f"Job {key!r} is not in the bundle. Its jobs: {', '.join(sorted(self.jobs))}.")
        return self.jobs[key]


def load_bundle(
    root: Path,
    target: str = "dev",
    *,
    local_home: Path | None = None,
    variables: Mapping[str, str] | None = None,
    user: str = "user@example.com",
) -> Bundle:
    """Read the bundle in the folder `root` for `target`.

    `variables` are those of `--var`; after them come `BUNDLE_VAR_<name>`, the target's value and the default. With `local_home` it
    is resolved for this machine: no development prefixes, catalog `spark_catalog`, a volume is the folder `<local_home>/<its key>`,
    `${workspace.file_path}` is `root`, the user is the one logged in here, and an id is the resource's key. Without it names are as
    a deployment by `user` would make them. A variable with a `lookup` becomes a text that says what is looked up.

    Raises `UsageError` naming file, line and key for whatever is misspelt, missing, unknown or circular.
    """
    root = Path(root).resolve()
    config = _read_all(root)
    targets = mapping_under(config, "targets")
    if target not in targets:
        raise UsageError(f"Target {target!r} is not in databricks.yml. Its targets: {', '.join(targets)}.")
    overrides = mapping_under(targets, target)
    refuse_unknown(overrides, KEYS["targets"], f"target {target!r}")
    declared, assigned = mapping_under(config, "variables"), mapping_under(overrides, "variables")
    config = merge(without(config, "targets", "variables"), without(overrides, "default", "variables"))

    values = _variable_values(target, declared, assigned, dict(variables or {}), local=local_home is not None)
    config["bundle"] = {**mapping_under(config, "bundle"), "target": target}
    user = user if local_home is None else _local_user()
    config["workspace"] = _workspace(mapping_under(config, "workspace"), root, user, local=local_home is not None)
    resources = mapping_under(config, "resources")
    refuse_unknown(resources, set(REQUIRED), "resources")
    config["resources"] = {kind: mapping_under(resources, kind) for kind in resources}

    # Twice, as names get their prefixes between: a reference to a schema's name must see the prefixed name.
    roots = {"var": values, "bundle": config["bundle"], "workspace": config["workspace"]}
    config = _References(roots).resolve(config, "databricks.yml")
    for kind, members in config["resources"].items():
        members.update({key: without_empty(resource, kind, kind) for key, resource in members.items()})
    check_resources(config["resources"])
    config["resources"] = _absolute_paths(config["resources"], root)
    _apply_mode(config, local=local_home is not None)
    home = None if local_home is None else Path(local_home).resolve()
    roots = {"resources": _with_computed(config["resources"], home)}
    return Bundle(root, target, _References(roots).resolve(config, "databricks.yml"))


def _read(path: Path, root: Path) -> dict[str, Any]:
    """One file of the bundle; a deployment lets a block of anchors stand at the top under any name."""
    shown = path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
    config, blocks = read_yaml(path, shown)
    config = {key: value for key, value in config.items() if key in KEYS["the top level"] or key not in blocks}
    refuse_unknown(config, KEYS["the top level"], "the top level")
    return config


def _read_all(root: Path) -> dict[str, Any]:
    """databricks.yml with all its includes."""
    config = _read(root / "databricks.yml", root)
    if "name" not in mapping_under(config, "bundle"):
        raise UsageError("databricks.yml: 'bundle' with a 'name' is missing.")
    patterns = config.get("include") or []
    config = without(config, "include")
    for pattern in patterns if isinstance(patterns, list) else [patterns]:
        found = sorted(path for path in glob(str(pattern), root_dir=root, recursive=True) if (root / path).is_file())
        if not found:
            raise UsageError(f"databricks.yml: include {pattern!r} matches no file.")
        for path in found:
            part = _read(root / path, root)
            for key in part:
                if key == "include":
                    fail(key, "'include' works in databricks.yml only.")
            defined = mapping_under(config, "resources")
            for kind, resources in mapping_under(part, "resources").items():
                for name in resources or {}:
                    if name in (defined.get(kind) or {}):
                        fail(name, f"resources.{kind}.{name} is already defined in another file.")
            config = merge(config, part)
    return config


def _absolute_paths(value: Any, root: Path, key: str = "") -> Any:
    """Relative paths of files, which count from the file that they stand in, as absolute ones."""
    if isinstance(value, dict):
        return {name: _absolute_paths(part, root, name) for name, part in value.items()}
    if isinstance(value, list):
        return [_absolute_paths(part, root, key) for part in value]
    if not isinstance(value, str) or value.startswith("/"):
        return value
    if (key in _FILE_KEYS and "://" not in value) or (key in _DOTTED_FILE_KEYS and value.startswith(("./", "../"))):
        return os.path.normpath(root / Path(key.place.rpartition(":")[0]).parent / value)
    return value


def _variable_values(
    target: str, declared: dict[str, Any], assigned: dict[str, Any], given: dict[str, str], *, local: bool
) -> dict[str, Any]:
    """Each variable's value, references in it still unresolved."""
    refuse_unknown(assigned, set(declared), f"variables of target {target!r}")
    refuse_unknown(given, set(declared), "--var")
    values = {}
    for name, definition in declared.items():
        definition = definition or {}
        refuse_unknown(definition, KEYS["variables"], f"variable {str(name)!r}")
        if name in assigned:
            value = assigned[name]
            whole = isinstance(value, dict) and set(value) <= KEYS["variables"]
            # A complex value is replaced, not merged, as in a deployment.
            definition = value if whole else {"default": value}
        if name in given:
            values[name] = given[name]
        elif local and name == "catalog":
            values[name] = LOCAL_CATALOG
        elif f"BUNDLE_VAR_{name}" in os.environ:
            values[name] = os.environ[f"BUNDLE_VAR_{name}"]
        elif "default" in definition:
            values[name] = definition["default"]
        elif "lookup" in definition:
            values[name] = "lookup of " + ", ".join(f"{kind} {wanted}" for kind, wanted in mapping_under(definition, "lookup").items())
        else:
            fail(name, f"variable {str(name)!r} has no value for target {target!r}: give --var {name}=… or set BUNDLE_VAR_{name}.")
    return values


def _workspace(workspace: dict[str, Any], root: Path, user: str, *, local: bool) -> dict[str, Any]:
    """`workspace` with what a deployment would know: the user and the folders."""
    if local:
        folders = {"root_path": str(root), "file_path": str(root), "artifact_path": str(root / "dist"), "host": "local"}
        workspace = {**workspace, **folders}
    else:
        workspace = {
            "host": "https://workspace.example.com",
            "root_path": "/Workspace/Users/${workspace.current_user.userName}/.bundle/${bundle.name}/${bundle.target}",
            "file_path": "${workspace.root_path}/files",
            "artifact_path": "${workspace.root_path}/artifacts",
            **workspace,
        }
    return {**workspace, "current_user": {"userName": user, "short_name": re.sub(r"\W", "_", user.split("@")[0])}}


def _local_user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have a number and no name
        return "local"


class _References:
    """Puts values in the place of `${…}`. `roots` are the first parts that it knows; `${resources.…}` waits if that is not one."""

    def __init__(self, roots: dict[str, Any]) -> None:
        self.roots = roots
        self.following: list[str] = []
        self.followed = 0

    def resolve(self, value: Any, where: str) -> Any:
        """`value` with its references replaced; a text that is nothing but a reference takes the value's own type."""
        if isinstance(value, dict):
            return {key: self.resolve(part, getattr(key, "place", where)) for key, part in value.items()}
        if isinstance(value, list):
            return [self.resolve(part, where) for part in value]
        if not isinstance(value, str) or "${" not in value:
            return value
        if "${" in _REFERENCE.sub("", value):
            raise UsageError(f"{where}: {value!r} is not a reference: write ${{var.name}}, ${{resources.kind.key.field}} or the like.")
        if whole := _REFERENCE.fullmatch(value):
            return self.look_up(whole[1], where)
        return _REFERENCE.sub(lambda found: self.text(found[1], value, where), value)

    def text(self, path: str, around: str, where: str) -> str:
        value = self.look_up(path, where)
        if isinstance(value, str) and len(value) > _LONGEST_TEXT:
            raise UsageError(f"{where}: ${{{path}}} has grown to {len(value):,} characters: {_LONGEST_TEXT:,} are the most inside a text.")
        if isinstance(value, dict | list):
            raise UsageError(f"{where}: ${{{path}}} is a {shape(value)} and cannot stand inside the text {around!r}.")
        return str(value).lower() if isinstance(value, bool) else str(value)

    def look_up(self, path: str, where: str) -> Any:
        parts = re.findall(r"[\w-]+", path)
        if parts[0] not in self.roots and parts[0] == "resources":
            return f"${{{path}}}"
        if path in self.following:
            circle = " → ".join([*self.following[self.following.index(path) :], path])
            raise UsageError(f"{where}: the reference goes in a circle: {circle}.")
        self.followed += 1
        if self.followed > _MOST_REFERENCES:
            raise UsageError(f"{where}: ${{{path}}}: there are more than {_MOST_REFERENCES:,} references to follow. Write fewer of them.")
        self.following.append(path)
        value: Any = self.roots
        for depth, part in enumerate(parts):
            if isinstance(value, list) and part.isdigit() and int(part) < len(value):
                value = value[int(part)]
            elif isinstance(value, dict) and part in value:
                value = value[part]
            else:
                known = f" Known: {', '.join(sorted(value))}." if isinstance(value, dict) else ""
                parent = ".".join(parts[:depth]) or "a bundle"
                raise UsageError(f"{where}: ${{{path}}} refers to nothing: there is no {part!r} in {parent}.{known}")
        value = self.resolve(value, where)
        self.following.pop()
        return value


def _apply_mode(config: dict[str, Any], *, local: bool) -> None:
    """Prefix names and pause schedules as `mode: development` does, but not locally. Volumes and secret scopes get no prefix."""
    mode = config.get("mode")
    if mode not in (None, "development", "production"):
        fail(next(key for key in config if key == "mode"), f"mode {mode!r} is not known: it is development or production.")
    if local:
        return
    development = mode == "development"
    prefix = mapping_under(config, "presets").get("name_prefix")
    if prefix is None:
        prefix = f"[dev {config['workspace']['current_user']['short_name']}] " if development else ""
    plain = re.sub(r"\W+", "_", prefix.strip().lstrip("["))
    for kind, resources in config["resources"].items():
        for resource in resources.values():
            if kind in ("schemas", "registered_models"):
                resource["name"] = plain + resource["name"]
            elif kind == "experiments":
                path = PurePosixPath(resource["name"])
                resource["name"] = str(path.with_name(prefix + path.name))
            elif kind not in ("volumes", "secret_scopes"):
                resource[REQUIRED[kind][0]] = prefix + resource[REQUIRED[kind][0]]
            for trigger in ("schedule", "continuous", "trigger"):
                if development and kind == "jobs" and resource.get(trigger):
                    resource[trigger].setdefault("pause_status", "PAUSED")


def _with_computed(resources: dict[str, dict[str, Any]], local_home: Path | None) -> dict[str, Any]:
    """The resources with the fields that only a deployment makes: ids, full names, a volume's path."""
    tree: dict[str, Any] = {}
    for kind, members in resources.items():
        tree[kind] = {}
        for number, (key, resource) in enumerate(members.items(), start=1):
            names = [resource[field] for field in ("catalog_name", "schema_name", "name") if field in resource]
            if local_home is not None:
                identity: Any = str(key)
            elif "catalog_name" in resource:
                identity = ".".join(names)
            else:
                identity = number if kind == "jobs" else str(number)
            computed = {"id": identity}
            if kind == "volumes":
                computed["volume_path"] = f"/Volumes/{'/'.join(names)}" if local_home is None else str(local_home / key)
            elif kind == "registered_models":
                computed["full_name"] = ".".join(names)
            elif kind == "experiments":
                computed["experiment_id"] = identity
            elif kind == "clusters":
                computed["cluster_id"] = identity
            tree[kind][key] = {**computed, **resource}
    return tree
