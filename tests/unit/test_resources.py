"""The bundle's own files: valid for Databricks, one graph for every target, and in step with notebooks and settings."""

import importlib
import inspect
import json
import re
from dataclasses import fields
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from databricks.sdk.service.jobs import JobSettings
from databricks.sdk.service.sql import AlertV2
from dotenv import dotenv_values

from laptop.bundle.keys import KEYS
from laptop.bundle.load import Bundle, load_bundle
from streaming_pipeline.core.settings import SECRET_KEYS, KafkaSettings, Settings
from streaming_pipeline.tasks import TASKS

ROOT = Path(__file__).resolve().parents[2]
PRODUCTION = ("prod", "prod_serverless")
ON_SERVERLESS = ("serverless", "prod_serverless")
TARGETS = ("dev", "serverless", *PRODUCTION)
PROD = {"service_principal": "00000000-0000-0000-0000-000000000001", "notification_email": "team@example.com", "operators": "on-call"}
MAIN = "full_streaming_pipeline"

MODELS = {
    "alerts": "Alert",
    "clusters": "Cluster",
    "dashboards": "Dashboard",
    "experiments": "MlflowExperiment",
    "jobs": "Job",
    "registered_models": "RegisteredModel",
    "schemas": "Schema",
    "secret_scopes": "SecretScope",
    "sql_warehouses": "SqlWarehouse",
    "volumes": "Volume",
}
PARTS = {  # the reader's name for a part of a resource → where its typed model is
    "tasks": "jobs.Task",
    "depends_on": "jobs.TaskDependency",
    "notebook_task": "jobs.NotebookTask",
    "condition_task": "jobs.ConditionTask",
    "run_job_task": "jobs.RunJobTask",
    "python_wheel_task": "jobs.PythonWheelTask",
    "spark_python_task": "jobs.SparkPythonTask",
    "libraries": "jobs.Library",
    "email_notifications": "jobs.TaskEmailNotifications",
    "webhook_notifications": "jobs.WebhookNotifications",
    "notification_settings": "jobs.TaskNotificationSettings",
    "jobs.parameters": "jobs.JobParameterDefinition",
    "schedule": "jobs.CronSchedule",
    "continuous": "jobs.Continuous",
    "trigger": "jobs.TriggerSettings",
    "queue": "jobs.QueueSettings",
    "health": "jobs.JobsHealthRules",
    "rules": "jobs.JobsHealthRule",
    "run_as": "jobs.JobRunAs",
    "job_clusters": "jobs.JobCluster",
    "new_cluster": "jobs.ClusterSpec",
    "autoscale": "jobs.AutoScale",
    "azure_attributes": "jobs.AzureAttributes",
    "aws_attributes": "jobs.AwsAttributes",
    "environments": "jobs.JobEnvironment",
    "spec": "jobs.Environment",
    "permissions": "jobs.JobPermission",
    "grants": "schemas.PrivilegeAssignment",
    "lifecycle": "jobs.Lifecycle",
    "clusters.lifecycle": "clusters.LifecycleWithStarted",
    "sql_warehouses.lifecycle": "sql_warehouses.LifecycleWithStarted",
    "sql_warehouses.tags": "sql_warehouses.EndpointTags",
    "sql_warehouses.custom_tags": "sql_warehouses.EndpointTagPair",
    "alerts.evaluation": "alerts.AlertV2Evaluation",
    "alerts.source": "alerts.AlertV2OperandColumn",
    "alerts.threshold": "alerts.AlertV2Operand",
    "alerts.value": "alerts.AlertV2OperandValue",
    "alerts.notification": "alerts.AlertV2Notification",
    "alerts.subscriptions": "alerts.AlertV2Subscription",
    "alerts.schedule": "alerts.CronSchedule",
}
NOT_IN_RESOURCES = {"the top level", "targets", "variables"}
ONLY_THE_BUNDLE_KNOWS = {"permissions"}
"""A deployment sends these by themselves."""


def required(target: str) -> dict[str, str]:
    """The variables without a default."""
    return PROD if target in PRODUCTION else {}


def model(path: str):
    """`jobs.Task` → the class of that name in databricks-bundles."""
    module, name = path.split(".")
    return getattr(importlib.import_module(f"databricks.bundles.{module}"), name)


@pytest.fixture(scope="module")
def bundles() -> dict[str, Bundle]:
    return {target: load_bundle(ROOT, target, variables=required(target)) for target in TARGETS}


@pytest.fixture(scope="module")
def jobs(bundles) -> dict[str, dict]:
    """The jobs of prod, where no name is prefixed."""
    return bundles["prod"].jobs


def tasks_of(job: dict) -> dict[str, dict]:
    return {task["task_key"]: task for task in job["tasks"]}


def parameters_of(job: dict) -> dict[str, str]:
    return {parameter["name"]: parameter["default"] for parameter in job["parameters"]}


def notebooks_of(job: dict) -> dict[str, Path]:
    return {key: Path(task["notebook_task"]["notebook_path"]) for key, task in tasks_of(job).items() if "notebook_task" in task}


def widgets_of(notebook: Path) -> set[str]:
    """What a notebook takes: those of its task."""
    return {parameter.name for parameter in TASKS[notebook.stem].parameters}


def plain(value):
    """The same without keys that know their place."""
    return json.loads(json.dumps(value))


def texts_in(value) -> list[str]:
    """Every text in a nested value, keys too."""
    if isinstance(value, dict):
        return [text for key, part in value.items() for text in [str(key), *texts_in(part)]]
    if isinstance(value, list):
        return [text for part in value for text in texts_in(part)]
    return [value] if isinstance(value, str) else []


@pytest.mark.parametrize("notebook", sorted((ROOT / "notebooks").rglob("*.py")), ids=lambda path: path.stem)
def test_what_a_notebook_imports_of_the_library_is_there(notebook):
    found = re.findall(r"^ *from (streaming_pipeline\S*) import (.+)$", notebook.read_text(encoding="utf-8"), flags=re.MULTILINE)
    for module, names in found:
        for name in names.split(", "):
            try:
                importlib.import_module(f"{module}.{name}")
            except ModuleNotFoundError:
                assert hasattr(importlib.import_module(module), name), f"{module}.{name}"


# ---- valid for Databricks ----


@pytest.mark.parametrize("target", TARGETS)
def test_every_resource_fits_its_typed_model(bundles, target):
    assert set(bundles[target].resources) == set(MODELS) - ({"clusters"} if target in ON_SERVERLESS else set())
    for kind, resources in bundles[target].resources.items():
        for resource in resources.values():
            model(f"{kind}.{MODELS[kind]}").from_dict(resource)  # raises ValueError on an unknown field or value


@pytest.mark.parametrize("target", TARGETS)
def test_the_jobs_api_keeps_every_setting_of_every_job(bundles, target):
    for name, job in bundles[target].jobs.items():
        settings = {key: value for key, value in plain(job).items() if key not in ONLY_THE_BUNDLE_KNOWS}
        assert JobSettings.from_dict(settings).as_dict() == settings, name


@pytest.mark.parametrize("target", TARGETS)
def test_the_alerts_api_keeps_every_setting_of_every_alert(bundles, target):
    for name, alert in bundles[target].resources["alerts"].items():
        settings = {key: value for key, value in plain(alert).items() if key not in ONLY_THE_BUNDLE_KNOWS}
        assert AlertV2.from_dict(settings).as_dict() == settings, name


@pytest.mark.parametrize("target", TARGETS)
def test_no_reference_is_left(bundles, target):
    assert [text for text in texts_in(bundles[target].config) if "${" in text] == []


def test_the_readers_table_of_keys_holds_nothing_that_databricks_lacks():
    paths = PARTS | {kind: f"{kind}.{name}" for kind, name in MODELS.items()}
    assert set(KEYS) - NOT_IN_RESOURCES == set(paths)
    for name, path in paths.items():
        unknown = KEYS[name] - {field.name for field in fields(model(path))}
        assert not unknown, f"{name}: {unknown}"


# ---- the graph ----


@pytest.mark.parametrize("target", TARGETS)
def test_every_notebook_exists_and_every_graph_ends(bundles, target):
    for name, job in bundles[target].jobs.items():
        tasks = tasks_of(job)
        for key, notebook in notebooks_of(job).items():
            assert notebook.is_file(), f"{name}, {key}: {notebook}"
            assert notebook.stem == notebook.name.removesuffix(".py")
        graph = {key: {before["task_key"] for before in task.get("depends_on", [])} for key, task in tasks.items()}
        assert set().union(*graph.values()) <= set(tasks), name
        assert len(list(TopologicalSorter(graph).static_order())) == len(tasks)


def test_the_graph_is_the_same_for_every_target(bundles):
    def graph(target):
        return [
            (name, key, task.get("depends_on"), task.get("run_if"), task.get("notebook_task"))
            for name, job in bundles[target].jobs.items()
            for key, task in tasks_of(job).items()
        ]

    assert all(graph(target) == graph("dev") for target in TARGETS)


def test_the_main_jobs_graph(jobs):
    before = {key: {part["task_key"] for part in task.get("depends_on", [])} for key, task in tasks_of(jobs[MAIN]).items()}
    assert before == {
        "01_stream_kafka_to_bronze": set(),
        "02_bronze_to_silver_cleanse": {"01_stream_kafka_to_bronze"},
        "03_monitor_silver_events": {"02_bronze_to_silver_cleanse"},
        "check_champion": {"02_bronze_to_silver_cleanse"},
        "has_champion": {"check_champion"},
        "train_if_missing": {"has_champion"},
        "04_score_silver_to_gold": {"02_bronze_to_silver_cleanse", "train_if_missing"},
        "05_send_alerts": set(before) - {"05_send_alerts"},
    }
    tasks = tasks_of(jobs[MAIN])
    assert tasks["train_if_missing"]["depends_on"] == [{"task_key": "has_champion", "outcome": "false"}]
    assert tasks["04_score_silver_to_gold"]["run_if"] == "NONE_FAILED"
    assert tasks["05_send_alerts"]["run_if"] == "ALL_DONE"
    states = json.loads(tasks["05_send_alerts"]["notebook_task"]["base_parameters"]["task_states"])
    assert states == {key: f"{{{{tasks.{key}.result_state}}}}" for key in tasks if key != "05_send_alerts"}


@pytest.mark.parametrize("target", TARGETS)
def test_every_notebook_task_has_the_targets_compute_and_the_wheel(bundles, target):
    for name, job in bundles[target].jobs.items():
        for key in notebooks_of(job):
            task = tasks_of(job)[key]
            if target in ON_SERVERLESS:
                assert "job_clusters" not in job and "job_cluster_key" not in task and "libraries" not in task, (name, key)
                assert task["environment_key"] == job["environments"][0]["environment_key"]
                assert job["environments"][0]["spec"]["dependencies"] == [f"{ROOT}/dist/*.whl"]
            else:
                assert "environments" not in job and "environment_key" not in task, (name, key)
                assert task["job_cluster_key"] == job["job_clusters"][0]["job_cluster_key"]
                assert task["libraries"] == [{"whl": f"{ROOT}/dist/*.whl"}]
        for key in set(tasks_of(job)) - set(notebooks_of(job)):
            assert not {"job_cluster_key", "environment_key", "libraries"} & set(tasks_of(job)[key]), (name, key)


# ---- parameters ----


def test_every_widget_is_given_and_every_parameter_is_used(jobs):
    for name, job in jobs.items():
        used = set(re.findall(r"\{\{job\.parameters\.(\w+)\}\}", " ".join(texts_in(job["tasks"]))))
        for key, notebook in notebooks_of(job).items():
            widgets = widgets_of(notebook)
            given = set(tasks_of(job)[key]["notebook_task"].get("base_parameters", {}))
            missing = widgets - given - set(parameters_of(job))
            assert not missing, f"{notebook.name} has widgets that job {name} does not give: {missing}"
            assert given <= widgets, f"{notebook.name} does not declare {given - widgets} of its base_parameters"
            used |= widgets
        assert not set(parameters_of(job)) - used, f"job {name} has parameters that none of its notebooks declares"


OWN_PARAMETERS = {name: {one.name for one in task.own} for name, task in TASKS.items() if name != "05_send_alerts"}
"""What a job gives its notebook besides settings."""


def test_the_main_jobs_parameters_are_the_settings(jobs):
    known = {field.name for field in fields(Settings)} - {"secrets"}
    assert set(parameters_of(jobs[MAIN])) == known
    for name, job in jobs.items():
        assert set(parameters_of(job)) - known == OWN_PARAMETERS.get(name, set()), name


def test_parameters_default_to_what_the_settings_default_to(jobs):
    by_default = Settings(catalog="main")
    for job in jobs.values():
        constant = {
            key: text
            for key, text in parameters_of(job).items()
            if key not in {"config_dir", "checkpoint_dir", "runs_dir", "run_id"}.union(*OWN_PARAMETERS.values())
        }
        settings = Settings.from_parameters(constant)
        assert {key: getattr(settings, key) for key in constant} == {key: getattr(by_default, key) for key in constant}


def test_a_run_from_the_main_job_hands_on_its_parameters(jobs):
    task = tasks_of(jobs[MAIN])["train_if_missing"]["run_job_task"]
    # run_id is each run's own.
    assert task["job_parameters"] == {
        key: f"{{{{job.parameters.{key}}}}}" for key in parameters_of(jobs["train_anomaly_detector"]) if key != "run_id"
    }


def test_every_dynamic_value_refers_to_something_there_is(jobs):
    seen = 0
    for name, job in jobs.items():
        tasks, notebooks = tasks_of(job), notebooks_of(job)
        for reference in re.findall(r"\{\{(.*?)\}\}", " ".join(texts_in(job))):
            seen += 1
            match reference.split("."):
                case ["job", "run_id" | "id"] | ["workspace", "url"]:
                    pass
                case ["job", "parameters", parameter]:
                    assert parameter in parameters_of(job), (name, reference)
                case ["tasks", task, "result_state"]:
                    assert task in tasks, (name, reference)
                case ["tasks", task, "values", value]:
                    assert f'"{value}"' in inspect.getsource(TASKS[notebooks[task].stem].call), (name, reference)
                case _:
                    pytest.fail(f"{name}: {reference}")
    assert seen > 10


# ---- what a deployment relies on ----


@pytest.mark.parametrize("target", TARGETS)
def test_every_job_queues_runs_once_and_every_task_has_an_end(bundles, target):
    for name, job in bundles[target].jobs.items():
        assert job["max_concurrent_runs"] == 1 and job["queue"] == {"enabled": True}, name
        assert job["timeout_seconds"] > 0
        for key, task in tasks_of(job).items():
            assert "condition_task" in task or 0 < task["timeout_seconds"] < job["timeout_seconds"], (name, key)
            if "notebook_task" in task:
                assert "max_retries" in task, (name, key)


def test_a_failure_is_told_per_task_where_a_later_task_could_hide_it(bundles):
    for target, told in {"dev": "user@example.com", "prod": "team@example.com"}.items():
        for name, job in bundles[target].jobs.items():
            if len(job["tasks"]) == 1:
                assert job["email_notifications"]["on_failure"] == [told], name
                continue
            for key, task in tasks_of(job).items():
                assert "condition_task" in task or task["email_notifications"]["on_failure"] == [told], (name, key)


def test_schedules_are_paused_in_development_and_on_in_production(bundles):
    for target in TARGETS:
        wanted = "UNPAUSED" if target in PRODUCTION else "PAUSED"
        scheduled = {name: job["schedule"] for name, job in bundles[target].jobs.items() if "schedule" in job}
        assert set(scheduled) == {MAIN, "table_maintenance", "train_anomaly_detector"}
        assert {schedule["pause_status"] for schedule in scheduled.values()} == {wanted}
        assert {schedule["timezone_id"] for schedule in scheduled.values()} == {"UTC"}
        assert scheduled[MAIN]["quartz_cron_expression"] == "15 30 * * * ?"


@pytest.mark.parametrize("target", PRODUCTION)
def test_production_runs_as_a_service_principal_and_warns_of_long_runs(bundles, target):
    config, job = bundles[target].config, bundles[target].jobs[MAIN]
    assert config["mode"] == "production"
    assert config["run_as"] == {"service_principal_name": PROD["service_principal"]}
    assert PROD["service_principal"] in config["workspace"]["root_path"]
    assert job["health"]["rules"][0]["metric"] == "RUN_DURATION_SECONDS"
    assert job["email_notifications"]["on_duration_warning_threshold_exceeded"] == ["team@example.com"]
    assert job["tags"] == {"project": "streaming-pipeline", "environment": target}


def test_the_workers_are_spot_machines_and_the_driver_is_not(bundles):
    cluster = bundles["prod"].jobs[MAIN]["job_clusters"][0]["new_cluster"]
    assert cluster["azure_attributes"]["availability"] == "SPOT_WITH_FALLBACK_AZURE"
    assert cluster["azure_attributes"]["first_on_demand"] == 1


@pytest.mark.parametrize("target", PRODUCTION)
def test_in_production_each_group_may_do_its_own_and_no_more(bundles, target):
    resources = bundles[target].resources

    def may(kind: str) -> set[tuple[str, str]]:
        granted = [permission for resource in resources[kind].values() for permission in resource.get("permissions", [])]
        return {(permission["level"], next(value for key, value in permission.items() if key != "level")) for permission in granted}

    owners_alone = [
        key
        for kind in ("jobs", "dashboards", "alerts", "clusters", "sql_warehouses", "experiments", "secret_scopes")
        for key, resource in resources.get(kind, {}).items()
        if "permissions" not in resource
    ]
    assert owners_alone == ["produce_synthetic_events"], "made-up events are nothing for a topic in use"
    assert may("jobs") == {("CAN_MANAGE_RUN", "on-call")}
    assert target != "prod" or may("clusters") == {("CAN_RESTART", "on-call")}
    assert may("dashboards") == may("alerts") == {("CAN_READ", "users")}
    assert may("sql_warehouses") == {("CAN_USE", "users")}
    assert may("experiments") == {("CAN_MANAGE", PROD["service_principal"]), ("CAN_READ", "on-call")}
    assert may("secret_scopes") == {("READ", PROD["service_principal"])}
    assert resources["schemas"]["pipeline"]["grants"] == [
        {"principal": PROD["service_principal"], "privileges": ["ALL_PRIVILEGES"]},
        {"principal": "account users", "privileges": ["USE_SCHEMA", "SELECT"]},
    ]
    # Those of the whole bundle would reach the secrets.
    assert "permissions" not in bundles[target].config


def test_nobody_is_let_in_on_what_is_deployed_for_development(bundles):
    for target in set(TARGETS) - set(PRODUCTION):
        for resources in bundles[target].resources.values():
            assert not any(key in resource for resource in resources.values() for key in ("permissions", "grants"))


@pytest.mark.parametrize("target", TARGETS)
def test_what_costs_money_carries_the_projects_tags(bundles, target):
    resources, tags = bundles[target].resources, {"project": "streaming-pipeline", "environment": target}
    assert all(job["tags"] == tags for job in resources["jobs"].values())
    clusters = [cluster["new_cluster"] for job in resources["jobs"].values() for cluster in job.get("job_clusters", [])]
    assert all(cluster["custom_tags"] == tags for cluster in [*clusters, *resources.get("clusters", {}).values()])
    for warehouse in resources["sql_warehouses"].values():
        assert {tag["key"]: tag["value"] for tag in warehouse["tags"]["custom_tags"]} == tags


@pytest.mark.parametrize("target", TARGETS)
def test_a_budget_policy_is_named_by_a_variable_and_else_not_at_all(bundles, target):
    given = load_bundle(ROOT, target, variables=required(target) | {"budget_policy_id": "policy-1"})
    for name, job in bundles[target].jobs.items():
        assert "budget_policy_id" not in job, name
        assert given.job(name)["budget_policy_id"] == "policy-1"


@pytest.mark.parametrize("target", TARGETS)
def test_dashboard_and_sql_alerts_use_the_bundles_small_warehouse_or_the_one_that_is_named(bundles, target):
    def warehouses(bundle: Bundle) -> set[str]:
        return {resource["warehouse_id"] for kind in ("dashboards", "alerts") for resource in bundle.resources[kind].values()}

    assert warehouses(bundles[target]) == {"1"}
    [own] = bundles[target].resources["sql_warehouses"].values()
    assert own["enable_serverless_compute"] and own["cluster_size"] == "2X-Small" and 0 < own["auto_stop_mins"] <= 10
    assert warehouses(load_bundle(ROOT, target, variables=required(target) | {"warehouse_id": "abc"})) == {"abc"}


@pytest.mark.parametrize("target", TARGETS)
def test_the_dashboard_reads_the_targets_tables_by_the_viewers_own_rights(bundles, target):
    resources = bundles[target].resources
    [dashboard] = resources["dashboards"].values()
    assert (dashboard["dataset_catalog"], dashboard["dataset_schema"]) == ("main", resources["schemas"]["pipeline"]["name"])
    assert dashboard["embed_credentials"] is False
    assert Path(dashboard["file_path"]).name.endswith(".lvdash.json") and Path(dashboard["file_path"]).is_file()


def test_sql_alerts_look_hourly_in_production_and_tell_whom_the_variables_name(bundles):
    for target in TARGETS:
        schedules = [alert["schedule"] for alert in bundles[target].resources["alerts"].values()]
        assert {schedule["pause_status"] for schedule in schedules} == {"UNPAUSED" if target in PRODUCTION else "PAUSED"}
        assert {schedule["quartz_cron_schedule"] for schedule in schedules} == {"15 20 * * * ?"}, "the warehouse wakes once for all"

    def told(**variables: str) -> list:
        alerts = load_bundle(ROOT, "prod", variables=PROD | variables).resources["alerts"].values()
        first, *others = [alert["evaluation"]["notification"]["subscriptions"] for alert in alerts]
        assert others == [first] * 2
        return first

    assert told() == [{"user_email": "team@example.com"}]
    assert told(alert_user="", alert_destination="d-1") == [{"destination_id": "d-1"}]


@pytest.mark.parametrize("target", TARGETS)
def test_in_production_a_destroy_is_refused_and_a_copy_for_development_goes_as_a_whole(bundles, target):
    resources = bundles[target].resources
    kept = {(kind, key) for kind, of_kind in resources.items() for key, resource in of_kind.items() if "lifecycle" in resource}
    assert all(resources[kind][key]["lifecycle"] == {"prevent_destroy": True} for kind, key in kept)
    what_does_not_come_back = {
        ("schemas", "pipeline"),
        ("volumes", "checkpoints"),
        ("volumes", "runs"),
        ("secret_scopes", "connections"),
        ("registered_models", "anomaly_detector"),
    }
    assert kept == (what_does_not_come_back if target in PRODUCTION else set())


def test_what_is_uploaded_has_no_secrets_and_no_local_files(bundles):
    excluded = set(bundles["dev"].config["sync"]["exclude"])
    assert {".env", ".local/**", "tests/**", "dist/**"} <= excluded
    assert not {"notebooks/**", "config/**", "src/**"} & excluded


# ---- config/.env.template ----


def test_the_template_has_every_key_once_and_leaves_it_empty():
    text = (ROOT / "config/.env.template").read_text(encoding="utf-8")
    assert tuple(re.findall(r"^(\w+)=", text, flags=re.MULTILINE)) == SECRET_KEYS
    assert set(dotenv_values(ROOT / "config/.env.template").values()) == {""}


def test_the_templates_worked_shapes_connect(tmp_path):
    text = (ROOT / "config/.env.template").read_text(encoding="utf-8")
    shapes = []
    for block in re.findall(r"(?:^#[A-Z_]+=.*\n)+", text, flags=re.MULTILINE):
        (tmp_path / ".env").write_text(re.sub(r"^#", "", block, flags=re.MULTILINE), encoding="utf-8")
        shapes.append(KafkaSettings.from_secrets(dotenv_values(tmp_path / ".env")))
    assert [shape.security_protocol for shape in shapes] == ["SSL", "SASL_SSL"]
