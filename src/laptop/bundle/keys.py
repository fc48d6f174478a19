"""Which keys may stand where in a bundle, and the check that no other does."""

import re
from difflib import get_close_matches
from typing import Any

from laptop.bundle.yaml_files import LIST_KEYS, by_key, fail, place
from streaming_pipeline.core.errors import UsageError

_NOTIFIED = "on_duration_warning_threshold_exceeded on_failure on_start on_streaming_backlog_exceeded on_success"
_CLUSTER = """apply_policy_default_values autoscale autotermination_minutes aws_attributes azure_attributes cluster_log_conf cluster_name
    custom_tags data_security_mode docker_image driver_instance_pool_id driver_node_type_id enable_elastic_disk enable_local_disk_encryption
    gcp_attributes init_scripts instance_pool_id is_single_node kind node_type_id num_workers policy_id runtime_engine single_user_name
    spark_conf spark_env_vars spark_version ssh_public_keys use_ml_runtime workload_type"""
# What may stand where, by the name of the key that holds it (`kind.name` where a kind has its own). Contents of a key
# that is not here are free (tags, spark_conf, base_parameters, …). The SDK's own classes would know this too, but take 2.5 s to
# import; tests hold this table against the typed models of databricks-bundles.
KEYS = {
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
        "alerts.evaluation": "comparison_operator empty_result_state notification source threshold",
        "alerts.source": "aggregation display name",
        "alerts.threshold": "column value",
        "alerts.value": "bool_value double_value string_value",
        "alerts.notification": "notify_on_ok retrigger_seconds subscriptions",
        "alerts.subscriptions": "destination_id user_email",
        "alerts.schedule": "pause_status quartz_cron_schedule timezone_id",
        "sql_warehouses": """auto_stop_mins channel cluster_size enable_photon enable_serverless_compute lifecycle max_num_clusters
            min_num_clusters name permissions spot_instance_policy tags warehouse_type""",
        "sql_warehouses.tags": "custom_tags",
        "sql_warehouses.custom_tags": "key value",
    }.items()
}
# The kinds of resources that this reader knows, each with what it cannot do without; the first is its name.
REQUIRED = {
    "alerts": ("display_name", "query_text", "warehouse_id"),
    "clusters": ("cluster_name",),
    "dashboards": ("display_name", "file_path", "warehouse_id"),
    "experiments": ("name",),
    "jobs": ("name", "tasks"),
    "registered_models": ("name", "catalog_name", "schema_name"),
    "schemas": ("name", "catalog_name"),
    "secret_scopes": ("name",),
    "sql_warehouses": ("name",),
    "volumes": ("name", "catalog_name", "schema_name"),
}

# Where an empty text is a value like any other.
_MAY_BE_EMPTY = {"parameters", "condition_task"}

# Keys of jobs and tasks that hold a whole number, each with the lowest one; -1 retries means for ever.
_LOWEST = {"max_retries": -1, "min_retry_interval_millis": 0, "timeout_seconds": 0, "max_concurrent_runs": 0}


def refuse_unknown(mapping: Any, known: set[str] | frozenset[str], owner: str) -> None:
    """Raise `UsageError` for the first key that is not `known`, with the one that may be meant."""
    if not isinstance(mapping, dict):
        raise UsageError(f"{owner} must be a mapping of keys, not {mapping!r}.")
    for key in mapping:
        if key not in known:
            near = get_close_matches(key, known, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(sorted(known))}."
            fail(key, f"key {str(key)!r} of {owner} is not known. {hint}")


def check_resources(resources: dict[str, dict[str, Any]]) -> None:
    """Refuse unknown keys and missing ones in every resource, and a resource's key that is there twice, also of two kinds."""
    owners: dict[str, str] = {}
    for kind, members in resources.items():
        for key, resource in members.items():
            owner = f"resources.{kind}.{key}"
            if key in owners:
                fail(key, f"key {str(key)!r} is that of {owners[key]} and of {owner}: a deployment wants each key once.")
            owners[key] = owner
            if not isinstance(resource, dict):
                fail(key, f"{owner} must be a mapping of settings.")
            _check_keys(kind, kind, resource, owner)
            for field in REQUIRED[kind]:
                if not isinstance(resource.get(field), list if field == "tasks" else str):
                    fail(key, f"{owner} has no {field!r}, or not as a {'list' if field == 'tasks' else 'text'}.")


def without_empty(value: Any, kind: str, name: str) -> Any:
    """A resource without the keys that a variable left empty: a deployment leaves them out, where they are optional."""
    if isinstance(value, list):
        return [without_empty(item, kind, name) for item in value]
    if not isinstance(value, dict):
        return value
    is_kept = name in _MAY_BE_EMPTY or known_keys(kind, name) is None
    return {key: without_empty(part, kind, key) for key, part in value.items() if part != "" or is_kept}


def known_keys(kind: str, name: str) -> frozenset[str] | None:
    """The keys that may stand under `name` in a resource; None if they are free."""
    return KEYS.get(f"{kind}.{name}", KEYS.get(name))


def _check_keys(kind: str, name: str, value: Any, owner: str) -> None:
    """Refuse unknown keys of a resource, at every depth that `KEYS` describes."""
    if isinstance(value, list):
        if name == "parameters" and all(isinstance(item, str) for item in value):  # those of a Python task
            return
        keyed = name in LIST_KEYS
        for label, item in by_key(value, name).items() if keyed else enumerate(value):
            _check_keys(kind, name, item, f"{owner}, {LIST_KEYS[name]} {label!r}" if keyed else owner)
        return
    known = known_keys(kind, name)
    if known is None or value is None:
        return
    if not isinstance(value, dict):
        fail(name, f"{str(name)!r} of {owner} must be a mapping of keys, not {value!r}.")
    refuse_unknown(value, known, owner)
    if name == "tasks" and len(works := [key for key in value if key.endswith("_task")]) != 1:
        choice = "give it one of notebook_task, condition_task, run_job_task, …"
        raise UsageError(f"{place(value)}: {owner} has {' and '.join(works) or 'nothing to do'}: {choice}")
    for key, part in value.items():
        lowest = _LOWEST.get(key) if kind == "jobs" and part is not None else None
        # As a text the number may come from a variable.
        if lowest is not None and not (re.fullmatch(r"-?[0-9]{1,10}", str(part)) and lowest <= int(part) < 2**31):
            fail(key, f"{str(key)!r} of {owner} is {part!r}: it must be a whole number from {lowest} to {2**31 - 1}.")
        _check_keys(kind, key, part, owner if key in LIST_KEYS else f"{owner}.{key}")
