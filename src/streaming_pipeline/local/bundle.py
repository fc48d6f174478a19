"""databricks.yml and the files it includes → the resources of one target, every reference resolved, without a workspace.

It does what `databricks bundle` does, in the same order: includes, the target's overrides, variables, references. It is
stricter where a slip would pass in silence: a key that is not known, a key given twice, an include that finds nothing.
"""

import getpass
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from glob import glob
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

import yaml

from streaming_pipeline.errors import UsageError

LOCAL_CATALOG = "spark_catalog"

# The item of such a list is known by this field; overrides of the same item are merged into it.
_LIST_KEYS = {"tasks": "task_key", "job_clusters": "job_cluster_key", "parameters": "name", "environments": "environment_key"}

_NOTIFIED = "on_duration_warning_threshold_exceeded on_failure on_start on_streaming_backlog_exceeded on_success"
_CLUSTER = """apply_policy_default_values autoscale autotermination_minutes aws_attributes azure_attributes cluster_log_conf cluster_name
    custom_tags data_security_mode docker_image driver_instance_pool_id driver_node_type_id enable_elastic_disk enable_local_disk_encryption
    gcp_attributes init_scripts instance_pool_id is_single_node kind node_type_id num_workers policy_id runtime_engine single_user_name
    spark_conf spark_env_vars spark_version ssh_public_keys use_ml_runtime workload_type"""
# What may stand where, by the name of the key that holds it (`kind.name` where a kind has its own). Contents of a key
# that is not here are free (tags, spark_conf, base_parameters, …). The SDK's own classes would know this too, but take 2.5 s to
# import; tests hold this table against the typed models of databricks-bundles.
_KEYS = {
    name: frozenset(keys.split())
    for name, keys in {
        "the top level": """artifacts bundle experimental include permissions presets python resources run_as scripts sync targets variables
            workspace""",
        "targets": "artifacts bundle cluster_id default git mode permissions presets resources run_as sync variables workspace",
        "variables": "default description lookup type",
        "jobs": """budget_policy_id continuous description email_notifications environments git_source health job_clusters lifecycle
            max_concurrent_runs name notification_settings parameters performance_target permissions queue run_as schedule tags tasks
            timeout_seconds trigger webhook_notifications""",
        "tasks": """alert_task clean_rooms_notebook_task condition_task dashboard_task dbt_task depends_on description
            disable_auto_optimization disabled email_notifications environment_key existing_cluster_id for_each_task health
            job_cluster_key libraries max_retries min_retry_interval_millis new_cluster notebook_task notification_settings pipeline_task
            python_wheel_task retry_on_timeout run_if run_job_task spark_jar_task spark_python_task sql_task task_key timeout_seconds
            webhook_notifications""",
        "depends_on": "outcome task_key",
        "notebook_task": "base_parameters notebook_path source warehouse_id",
        "condition_task": "left op right",
        "run_job_task": "job_id job_parameters",
        "python_wheel_task": "entry_point named_parameters package_name parameters",
        "spark_python_task": "parameters python_file source",
        "libraries": "jar maven pypi requirements whl",
        "email_notifications": f"{_NOTIFIED} no_alert_for_skipped_runs",
        "webhook_notifications": _NOTIFIED,
        "notification_settings": "alert_on_last_attempt no_alert_for_canceled_runs no_alert_for_skipped_runs",
        "jobs.parameters": "default name",
        "schedule": "pause_status quartz_cron_expression timezone_id",
        "continuous": "pause_status task_retry_mode",
        "trigger": "file_arrival pause_status periodic table_update",
        "queue": "enabled",
        "health": "rules",
        "rules": "metric op value",
        "run_as": "group_name service_principal_name user_name",
        "job_clusters": "job_cluster_key new_cluster",
        "new_cluster": _CLUSTER,
        "clusters": f"{_CLUSTER} libraries lifecycle permissions",
        "autoscale": "max_workers min_workers",
        "azure_attributes": "availability first_on_demand log_analytics_info spot_bid_max_price",
        "aws_attributes": """availability ebs_volume_count ebs_volume_iops ebs_volume_size ebs_volume_throughput ebs_volume_type
            first_on_demand instance_profile_arn spot_bid_price_percent zone_id""",
        "environments": "environment_key spec",
        "spec": "base_environment dependencies environment_version",
        "permissions": "group_name level service_principal_name user_name",
        "grants": "principal privileges",
        "lifecycle": "prevent_destroy",
        "clusters.lifecycle": "prevent_destroy started",
        "sql_warehouses.lifecycle": "prevent_destroy started",
        "schemas": "catalog_name comment grants lifecycle name properties storage_root",
        "volumes": "catalog_name comment grants lifecycle name schema_name storage_location volume_type",
        # Not `aliases`: a deployment does not apply it, so it must not look as if it did.
        "registered_models": "catalog_name comment grants lifecycle name schema_name storage_location",
        "experiments": "artifact_location lifecycle name permissions tags",
        "secret_scopes": "backend_type keyvault_metadata lifecycle name permissions",
        "dashboards": """dataset_catalog dataset_schema display_name embed_credentials file_path lifecycle parent_path permissions
            serialized_dashboard warehouse_id""",
        "alerts": """custom_description custom_summary display_name evaluation file_path lifecycle parameters parent_path permissions
            query_text run_as run_as_user_name schedule warehouse_id""",
        "alerts.schedule": "pause_status quartz_cron_schedule timezone_id",
        "sql_warehouses": """auto_stop_mins channel cluster_size enable_photon enable_serverless_compute lifecycle max_num_clusters
            min_num_clusters name permissions spot_instance_policy tags warehouse_type""",
    }.items()
}
# The kinds of resources that this reader knows, each with what it cannot do without; the first is its name.
_REQUIRED = {
    "alerts": ("display_name",),
    "clusters": ("cluster_name",),
    "dashboards": ("display_name",),
    "experiments": ("name",),
    "jobs": ("name", "tasks"),
    "registered_models": ("name", "catalog_name", "schema_name"),
    "schemas": ("name", "catalog_name"),
    "secret_scopes": ("name",),
    "sql_warehouses": ("name",),
    "volumes": ("name", "catalog_name", "schema_name"),
}

# Relative paths under these keys count from the file that they stand in.
_FILE_KEYS = {"notebook_path", "python_file", "file_path"}
_DOTTED_FILE_KEYS = {"whl", "jar", "requirements", "dependencies"}  # here a name without ./ or ../ is a package or a workspace path

_REFERENCE = re.compile(r"\$\{([A-Za-z][\w-]*(?:(?:\.[\w-]+)|(?:\[\d+\]))*)\}")


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


def load_bundle(root: Path, target: str = "dev", *, local_home: Path | None = None, variables: Mapping[str, str] | None = None) -> Bundle:
    """Read the bundle in the folder `root` for `target`.

    `variables` are those of `--var`; after them come `BUNDLE_VAR_<name>`, the target's value and the default. With `local_home` it
    is resolved for this machine: no development prefixes, catalog `spark_catalog`, a volume is the folder `<local_home>/<its key>`,
    `${workspace.file_path}` is `root`, the user is the one logged in here, and an id is the resource's key. Without it names are as
    a deployment by `user@example.com` would make them. A variable with a `lookup` becomes a text that says what is looked up.

    Raises `UsageError` naming file, line and key for whatever is misspelt, missing, unknown or circular.
    """
    root = Path(root).resolve()
    config = _read_all(root)
    targets = _mapping(config, "targets")
    if target not in targets:
        raise UsageError(f"Target {target!r} is not in databricks.yml. Its targets: {', '.join(targets)}.")
    overrides = _mapping(targets, target)
    _refuse_unknown(overrides, _KEYS["targets"], f"target {target!r}")
    declared, assigned = _mapping(config, "variables"), _mapping(overrides, "variables")
    config = _merge(_without(config, "targets", "variables"), _without(overrides, "default", "variables"))

    values = _variable_values(target, declared, assigned, dict(variables or {}), local=local_home is not None)
    config["bundle"] = {**_mapping(config, "bundle"), "target": target}
    config["workspace"] = _workspace(_mapping(config, "workspace"), root, local=local_home is not None)
    resources = _mapping(config, "resources")
    _refuse_unknown(resources, set(_REQUIRED), "resources")
    config["resources"] = {kind: _mapping(resources, kind) for kind in resources}

    # Twice, as names get their prefixes between: a reference to a schema's name must see the prefixed name.
    roots = {"var": values, "bundle": config["bundle"], "workspace": config["workspace"]}
    config = _References(roots).resolve(config, "databricks.yml")
    _check_resources(config["resources"])
    config["resources"] = _absolute_paths(config["resources"], root)
    _apply_mode(config, local=local_home is not None)
    home = None if local_home is None else Path(local_home).resolve()
    roots = {"resources": _with_computed(config["resources"], home)}
    return Bundle(root, target, _References(roots).resolve(config, "databricks.yml"))


def place(mapping: Mapping[str, Any]) -> str:
    """Where a mapping of a loaded bundle (a job, a task, …) was written, as `resources/x.job.yml:12`; for error messages."""
    keys = [key for key in mapping if isinstance(key, _Key)]
    named = [key for key in keys if key in _LIST_KEYS.values()]  # the others may have come in by `<<` or an override
    return next((key.place for key in named + keys), "databricks.yml")


# ---- reading ----------------------------------------------------------------------------------------------------------------------


class _Key(str):
    """A mapping's key that remembers the file and line it stands in; it stays with its value through every merge."""

    place = "databricks.yml"


def _fail(key: str, message: str) -> NoReturn:
    raise UsageError(f"{key.place}: {message}" if isinstance(key, _Key) else message)


def _mapping(parent: dict[str, Any], name: str) -> dict[str, Any]:
    """The mapping under `name`, empty if there is none."""
    value = parent.get(name)
    if value is not None and not isinstance(value, dict):
        _fail(next(key for key in parent if key == name), f"{name!r} must be a mapping of keys, not {value!r}.")
    return value or {}


def _without(mapping: dict[str, Any], *names: str) -> dict[str, Any]:
    return {key: value for key, value in mapping.items() if key not in names}


class _Loader(yaml.SafeLoader):
    """YAML with keys that know their place; refuses a key given twice, and remembers which nodes carry an anchor."""

    def compose_node(self, parent: Any, index: Any) -> yaml.Node:
        anchor = getattr(self.peek_event(), "anchor", None)
        node = super().compose_node(parent, index)
        if anchor:
            node.anchored = True
        return node

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a key must be a plain text", problem_mark=key.start_mark)
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"key {key.value!r} is given twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[str, Any]:
        self.flatten_mapping(node)  # `<<: *anchor`
        mapping = {}
        for key_node, value_node in node.value:
            key = _Key(key_node.value)
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


def _read(path: Path, root: Path) -> dict[str, Any]:
    """One file as nested mappings."""
    shown = path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
    try:
        loader = _Loader(path.read_text(encoding="utf-8"))
        loader.name = shown
        node = loader.get_single_node()
        if node is None:
            return {}
        if not isinstance(node, yaml.MappingNode):
            raise UsageError(f"{shown}: expected keys such as 'resources:' at the top.")
        config = loader.construct_document(node)
    except OSError as error:
        raise UsageError(f"{shown} cannot be read ({error.strerror}): run this in the project's folder, where databricks.yml is.") from None
    except UnicodeDecodeError:
        raise UsageError(f"{shown} is not UTF-8 text.") from None
    except yaml.MarkedYAMLError as error:
        line = (error.problem_mark or error.context_mark).line + 1
        raise UsageError(f"{shown}:{line}: not valid YAML: {error.problem}.") from None
    except yaml.YAMLError as error:
        raise UsageError(f"{shown}: not valid YAML: {str(error).splitlines()[0]}.") from None
    blocks = {key.value for key, value in node.value if _is_anchor_block(value)}
    config = {key: value for key, value in config.items() if key in _KEYS["the top level"] or key not in blocks}
    _refuse_unknown(config, _KEYS["the top level"], "the top level")
    return config


def _read_all(root: Path) -> dict[str, Any]:
    """databricks.yml with all its includes."""
    config = _read(root / "databricks.yml", root)
    if "name" not in _mapping(config, "bundle"):
        raise UsageError("databricks.yml: 'bundle' with a 'name' is missing.")
    patterns = config.get("include") or []
    config = _without(config, "include")
    for pattern in patterns if isinstance(patterns, list) else [patterns]:
        found = sorted(path for path in glob(str(pattern), root_dir=root, recursive=True) if (root / path).is_file())
        if not found:
            raise UsageError(f"databricks.yml: include {pattern!r} matches no file.")
        for path in found:
            part = _read(root / path, root)
            for key in part:
                if key == "include":
                    _fail(key, "'include' works in databricks.yml only.")
            defined = _mapping(config, "resources")
            for kind, resources in _mapping(part, "resources").items():
                for name in resources or {}:
                    if name in (defined.get(kind) or {}):
                        _fail(name, f"resources.{kind}.{name} is already defined in another file.")
            config = _merge(config, part)
    return config


# ---- merging and checking ---------------------------------------------------------------------------------------------------------


def _merge(base: Any, over: Any, key: str = "") -> Any:
    """`over` on top of `base`: mappings merge, lists are joined (items with the same task_key and such merge), the rest is replaced."""
    if over is None or base is None:  # an empty override deletes nothing
        return base if over is None else over
    if isinstance(base, dict) and isinstance(over, dict):
        merged = dict(base)
        for name, value in over.items():
            part = _merge(merged.get(name), value, name)
            if part is value and merged.get(name) != value:  # with a new value comes the key that knows where it stands
                merged.pop(name, None)
            merged[name] = part
        return merged
    if isinstance(base, list) and isinstance(over, list):
        if key not in _LIST_KEYS:
            return base + over
        items = _by_key(base, key)
        for name, item in _by_key(over, key).items():
            items[name] = _merge(items.get(name), item)
        return list(items.values())
    if isinstance(base, dict | list) or isinstance(over, dict | list):
        _fail(key, f"{key!r} cannot be merged: one place has a {_shape(base)}, the other a {_shape(over)}.")
    return over


def _shape(value: Any) -> str:
    return "mapping" if isinstance(value, dict) else "list" if isinstance(value, list) else "single value"


def _by_key(items: list[Any], list_name: str) -> dict[str, Any]:
    """The items of a list such as `tasks` by their `task_key`."""
    field = _LIST_KEYS[list_name]
    found: dict[str, Any] = {}
    for item in items:
        if not isinstance(item, dict) or not isinstance(item.get(field), str):
            _fail(next(iter(item), list_name) if isinstance(item, dict) else list_name, f"an item of {list_name!r} has no {field!r}.")
        if item[field] in found:
            raise UsageError(f"{place(item)}: {field} {item[field]!r} is given twice.")
        found[item[field]] = item
    return found


def _refuse_unknown(mapping: Any, known: set[str] | frozenset[str], owner: str) -> None:
    if not isinstance(mapping, dict):
        raise UsageError(f"{owner} must be a mapping of keys, not {mapping!r}.")
    for key in mapping:
        if key not in known:
            near = get_close_matches(key, known, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(sorted(known))}."
            _fail(key, f"key {str(key)!r} of {owner} is not known. {hint}")


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


def _check_resources(resources: dict[str, dict[str, Any]]) -> None:
    for kind, members in resources.items():
        for key, resource in members.items():
            owner = f"resources.{kind}.{key}"
            if not isinstance(resource, dict):
                _fail(key, f"{owner} must be a mapping of settings.")
            _check_keys(kind, kind, resource, owner)
            for field in _REQUIRED[kind]:
                if not isinstance(resource.get(field), list if field == "tasks" else str):
                    _fail(key, f"{owner} has no {field!r}, or not as a {'list' if field == 'tasks' else 'text'}.")


def _check_keys(kind: str, name: str, value: Any, owner: str) -> None:
    """Refuse unknown keys of a resource, at every depth that `_KEYS` describes."""
    if isinstance(value, list):
        if name == "parameters" and all(isinstance(item, str) for item in value):  # those of a Python task
            return
        keyed = name in _LIST_KEYS
        for label, item in _by_key(value, name).items() if keyed else enumerate(value):
            _check_keys(kind, name, item, f"{owner}, {_LIST_KEYS[name]} {label!r}" if keyed else owner)
        return
    known = _KEYS.get(f"{kind}.{name}", _KEYS.get(name))
    if known is None or value is None:
        return
    if not isinstance(value, dict):
        _fail(name, f"{str(name)!r} of {owner} must be a mapping of keys, not {value!r}.")
    _refuse_unknown(value, known, owner)
    if name == "tasks" and len(works := [key for key in value if key.endswith("_task")]) != 1:
        choice = "give it one of notebook_task, condition_task, run_job_task, …"
        raise UsageError(f"{place(value)}: {owner} has {' and '.join(works) or 'nothing to do'}: {choice}")
    for key, part in value.items():
        _check_keys(kind, key, part, owner if key in _LIST_KEYS else f"{owner}.{key}")


# ---- variables, workspace, references ---------------------------------------------------------------------------------------------


def _variable_values(
    target: str, declared: dict[str, Any], assigned: dict[str, Any], given: dict[str, str], *, local: bool
) -> dict[str, Any]:
    """Each variable's value, references in it still unresolved."""
    _refuse_unknown(assigned, set(declared), f"variables of target {target!r}")
    _refuse_unknown(given, set(declared), "--var")
    values = {}
    for name, definition in declared.items():
        definition = definition or {}
        _refuse_unknown(definition, _KEYS["variables"], f"variable {str(name)!r}")
        if name in assigned:
            value = assigned[name]
            whole = isinstance(value, dict) and set(value) <= _KEYS["variables"]
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
            values[name] = "lookup of " + ", ".join(f"{kind} {wanted}" for kind, wanted in _mapping(definition, "lookup").items())
        else:
            _fail(name, f"variable {str(name)!r} has no value for target {target!r}: give --var {name}=… or set BUNDLE_VAR_{name}.")
    return values


def _workspace(workspace: dict[str, Any], root: Path, *, local: bool) -> dict[str, Any]:
    """`workspace` with what a deployment would know: the user and the folders."""
    if local:
        user = _local_user()
        folders = {"root_path": str(root), "file_path": str(root), "artifact_path": str(root / "dist"), "host": "local"}
        workspace = {**workspace, **folders}
    else:
        user = "user@example.com"
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
        if isinstance(value, dict | list):
            raise UsageError(f"{where}: ${{{path}}} is a {_shape(value)} and cannot stand inside the text {around!r}.")
        return str(value).lower() if isinstance(value, bool) else str(value)

    def look_up(self, path: str, where: str) -> Any:
        parts = re.findall(r"[\w-]+", path)
        if parts[0] not in self.roots and parts[0] == "resources":
            return f"${{{path}}}"
        if path in self.following:
            circle = " → ".join([*self.following[self.following.index(path) :], path])
            raise UsageError(f"{where}: the reference goes in a circle: {circle}.")
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
        _fail(next(key for key in config if key == "mode"), f"mode {mode!r} is not known: it is development or production.")
    if local:
        return
    development = mode == "development"
    prefix = _mapping(config, "presets").get("name_prefix")
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
            elif kind not in ("volumes", "secret_scopes", "sql_warehouses"):
                resource[_REQUIRED[kind][0]] = prefix + resource[_REQUIRED[kind][0]]
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
                identity = number
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
