"""The bundle reader: what it resolves, and what it refuses by name."""

import getpass
import re
import shutil
from itertools import combinations
from pathlib import Path

import pytest

from laptop.bundle.load import load_bundle
from laptop.bundle.yaml_files import place
from streaming_pipeline.core.errors import UsageError

ROOT = Path(__file__).resolve().parents[2]
PROD = {"service_principal": "00000000-0000-0000-0000-000000000001", "notification_email": "team@example.com", "operators": "on-call"}


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the bundle's files, to break."""
    shutil.copy(ROOT / "databricks.yml", tmp_path)
    shutil.copytree(ROOT / "resources", tmp_path / "resources")
    return tmp_path


@pytest.fixture
def small(tmp_path: Path):
    """Writes a bundle of one's own: `small(databricks_yml, {"x.yml": text})` → its folder."""

    def write(main: str, files: dict[str, str] | None = None) -> Path:
        for name, text in {"databricks.yml": main, **(files or {})}.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path

    return write


def parameters(job: dict) -> dict[str, str]:
    return {parameter["name"]: parameter["default"] for parameter in job["parameters"]}


def test_for_this_machine_there_are_no_prefixes_and_everything_is_under_the_home_folder(tmp_path):
    bundle = load_bundle(ROOT, local_home=tmp_path)
    job = bundle.job("full_streaming_pipeline")
    assert job["name"] == "full_streaming_pipeline"
    assert parameters(job) | {"experiment": "", "kafka_options": ""} == parameters(job) | {
        "catalog": "spark_catalog",
        "schema": "streaming",
        "config_dir": f"{ROOT}/config",
        "checkpoint_dir": f"{tmp_path}/checkpoints",
        "runs_dir": f"{tmp_path}/runs",
        "run_id": "{{job.run_id}}",
        "model_name": "iforest_silver_anomaly_detector",
        "experiment": "",
        "kafka_options": "",
    }
    assert parameters(job)["experiment"] == "/Shared/streaming-pipeline"
    tasks = {task["task_key"]: task for task in job["tasks"]}
    assert tasks["train_if_missing"]["run_job_task"]["job_id"] == "train_anomaly_detector"
    assert tasks["01_stream_kafka_to_bronze"]["notebook_task"]["notebook_path"] == f"{ROOT}/notebooks/01_stream_kafka_to_bronze.py"
    assert "pause_status" not in job["schedule"]
    assert bundle.config["workspace"]["current_user"]["userName"] == getpass.getuser()


def test_development_mode_prefixes_names_and_pauses_schedules_and_leaves_volumes_and_scopes_to_the_bundle():
    bundle = load_bundle(ROOT, "dev")
    resources = bundle.resources
    assert bundle.job("table_maintenance")["name"] == "[dev user] table_maintenance"
    assert bundle.job("table_maintenance")["schedule"]["pause_status"] == "PAUSED"
    assert resources["schemas"]["pipeline"]["name"] == "dev_user_streaming"
    assert resources["registered_models"]["anomaly_detector"]["name"] == "dev_user_iforest_silver_anomaly_detector"
    assert resources["experiments"]["trainings"]["name"] == "/Shared/[dev user] streaming-pipeline"
    assert resources["clusters"]["exploration"]["cluster_name"] == "[dev user] streaming-pipeline exploration"
    assert resources["sql_warehouses"]["dashboard"]["name"] == "[dev user] streaming-pipeline dashboard"
    assert resources["volumes"]["runs"]["name"] == "runs"
    given = parameters(bundle.job("full_streaming_pipeline"))
    assert given["schema"] == "dev_user_streaming", "a reference to a name must see its prefix"
    assert given["checkpoint_dir"] == "/Volumes/main/dev_user_streaming/checkpoints"
    assert given["secret_scope"] == "streaming-pipeline-dev-user"


def names_of(bundle) -> set[tuple]:
    """What every resource is called in a workspace; a volume counts with its schema."""
    return {
        (kind, *(resource[field] for field in ("catalog_name", "schema_name", "name", "display_name", "cluster_name") if field in resource))
        for kind, resources in bundle.resources.items()
        for resource in resources.values()
    }


def test_no_name_of_one_target_or_user_is_also_a_name_of_another():
    bundles = [load_bundle(ROOT, target, user=user) for target in ("dev", "serverless") for user in ("ann@example.com", "bob@example.com")]
    bundles.append(load_bundle(ROOT, "prod", variables=PROD))
    for one, other in combinations(bundles, 2):
        assert not names_of(one) & names_of(other)
    assert len({bundle.config["workspace"]["root_path"] for bundle in bundles}) == len(bundles), "where dashboard and alerts lie"


def test_production_needs_three_variables_and_says_which(monkeypatch):
    for name in ("notification_email", "service_principal", "operators"):
        with pytest.raises(UsageError, match=rf"databricks.yml:\d+: variable '{name}' has no value for target 'prod'"):
            load_bundle(ROOT, "prod", variables={key: value for key, value in PROD.items() if key != name})
    monkeypatch.setenv("BUNDLE_VAR_notification_email", "from-environment@example.com")
    bundle = load_bundle(ROOT, "prod", variables={"service_principal": "from-option", "operators": "on-call"})
    assert bundle.config["run_as"] == {"service_principal_name": "from-option"}
    assert bundle.config["workspace"]["root_path"] == "/Workspace/Users/from-option/.bundle/streaming-pipeline/prod"
    task = bundle.job("full_streaming_pipeline")["tasks"][0]
    assert task["email_notifications"]["on_failure"] == ["from-environment@example.com"]


def test_variables_the_option_wins_over_the_environment_over_the_target_over_the_default(small, monkeypatch):
    root = small("""
bundle: {name: b}
variables:
  x: {default: from default}
targets:
  dev: {}
  other: {variables: {x: from target}}
resources:
  secret_scopes: {s: {name: "${var.x}"}}
""")

    def name(target, **variables):
        return load_bundle(root, target, variables=variables).resources["secret_scopes"]["s"]["name"]

    assert name("dev") == "from default"
    assert name("other") == "from target"
    monkeypatch.setenv("BUNDLE_VAR_x", "from environment")
    assert name("other") == "from environment"
    assert name("other", x="from option") == "from option"


def test_the_cluster_of_the_other_cloud_is_chosen_by_a_variable():
    def cluster(**variables):
        return load_bundle(ROOT, "prod", variables=PROD | variables).job("table_maintenance")["job_clusters"][0]["new_cluster"]

    assert cluster()["azure_attributes"]["availability"] == "SPOT_WITH_FALLBACK_AZURE"
    aws = cluster(job_cluster="${var.aws_cluster}")
    assert aws["aws_attributes"]["availability"] == "SPOT_WITH_FALLBACK"
    assert "azure_attributes" not in aws


def test_what_a_variable_leaves_empty_is_left_out_where_it_may_be(small):
    root = small("""
bundle: {name: b}
variables: {nothing: {default: ""}}
targets: {dev: {}}
resources:
  jobs:
    j:
      name: j
      budget_policy_id: ${var.nothing}
      parameters: [{name: a, default: "${var.nothing}"}]
      tasks: [{task_key: t, notebook_task: {notebook_path: n.py, base_parameters: {b: "${var.nothing}"}, warehouse_id: "${var.nothing}"}}]
""")
    job = load_bundle(root).job("j")
    assert "budget_policy_id" not in job and parameters(job) == {"a": ""}
    assert job["tasks"][0]["notebook_task"] == {"notebook_path": f"{root}/n.py", "base_parameters": {"b": ""}}
    with pytest.raises(UsageError, match=r"resources.secret_scopes.s has no 'name'"):
        load_bundle(small("bundle: {name: b}\ntargets: {dev: {}}\nresources: {secret_scopes: {s: {name: ''}}}\n"))


def test_overrides_merge_by_key_and_complex_variables_are_replaced(small):
    root = small(
        """
bundle: {name: b}
include: ["parts/*.yml"]
variables:
  cluster: {type: complex, default: {spark_version: "1", num_workers: 1}}
  policy: {lookup: {cluster_policy: Small}}
targets:
  dev:
    variables:
      cluster: {spark_version: "2"}
    resources:
      jobs:
        j:
          parameters: [{name: b, default: "3"}]
          tasks:
            - {task_key: second, timeout_seconds: 5}
            - {task_key: third, notebook_task: {notebook_path: over.py}}
          job_clusters: [{job_cluster_key: main, new_cluster: "${var.cluster}"}]
""",
        {
            "parts/j.yml": """
common: &common
  max_retries: 1
  timeout_seconds: 60
resources:
  jobs:
    j:
      name: "job of ${bundle.name}: ${var.policy}"
      parameters: [{name: a, default: "1"}, {name: b, default: "2"}]
      tasks:
        - {task_key: first, notebook_task: {notebook_path: ../first.py}, <<: *common}
        - {task_key: second, notebook_task: {notebook_path: second.py}, <<: *common, max_retries: 7}
"""
        },
    )
    job = load_bundle(root, local_home=root).job("j")
    assert job["name"] == "job of b: lookup of cluster_policy Small"
    assert parameters(job) == {"a": "1", "b": "3"}
    assert job["job_clusters"][0]["new_cluster"] == {"spark_version": "2"}
    first, second, third = job["tasks"]
    assert (first["max_retries"], first["timeout_seconds"]) == (1, 60)
    assert (second["max_retries"], second["timeout_seconds"]) == (7, 5)
    # A relative path counts from the file that it stands in.
    assert [task["notebook_task"]["notebook_path"] for task in job["tasks"]] == [
        f"{root}/first.py",
        f"{root}/parts/second.py",
        f"{root}/over.py",
    ]
    assert place(third).startswith("databricks.yml:")
    assert place(second).startswith("parts/j.yml:")


def test_a_task_knows_the_line_that_it_stands_in():
    job = load_bundle(ROOT, "serverless").job("full_streaming_pipeline")
    lines = (ROOT / "resources/full_streaming_pipeline.job.yml").read_text(encoding="utf-8").splitlines()
    for task in job["tasks"]:
        name, line = place(task).split(":")
        assert name == "resources/full_streaming_pipeline.job.yml"
        assert lines[int(line) - 1].strip() == f"- task_key: {task['task_key']}"


def test_an_unknown_job_or_target_lists_those_that_there_are():
    with pytest.raises(
        UsageError,
        match=r"Job 'ful'.* backfill_bronze, full_streaming_pipeline, .*, rescore_gold, resend_alerts, set_baseline, set_champion, silence",
    ):
        load_bundle(ROOT).job("ful")
    with pytest.raises(UsageError, match=r"Target 'staging'.* dev, serverless, prod"):
        load_bundle(ROOT, "staging")
    with pytest.raises(UsageError, match=r"'katalog' of --var is not known. Did you mean 'catalog'"):
        load_bundle(ROOT, variables={"katalog": "x"})


JOB = "resources/full_streaming_pipeline.job.yml"
BROKEN = {
    "top level": ("databricks.yml", "targets:", "targetz: {}\ntargets:", ["databricks.yml:", "'targetz'", "'targets'"]),
    "target": ("databricks.yml", "    mode: development", "    mood: development", ["databricks.yml:", "'mood'", "target 'dev'"]),
    "variable": ("databricks.yml", "    default: main", "    defualt: main", ["databricks.yml:", "'defualt'", "'catalog'", "'default'"]),
    "variable of a target": ("databricks.yml", "      secret_scope: $", "      secret_skope: $", ["databricks.yml:", "'secret_skope'"]),
    "kind": ("resources/storage.yml", "  schemas:", "  schemata:", ["resources/storage.yml:", "'schemata'", "'schemas'"]),
    "schema": ("resources/storage.yml", "      comment: Kafka", "      coment: Kafka", ["storage.yml:", "'coment'", "schemas.pipeline"]),
    "volume": ("resources/storage.yml", "volume_type", "volume_typ", ["resources/storage.yml:", "'volume_typ'", "volumes.checkpoints"]),
    "lifecycle": (
        "resources/model.yml",
        "      comment:",
        "      lifecycle:\n        prevent_destruction: true\n      comment:",
        ["model.yml:", "'prevent_destruction'"],
    ),
    "model alias": ("resources/model.yml", "      comment:", "      aliases: []\n      comment:", ["model.yml:", "'aliases'"]),
    "alert": ("resources/alerts.yml", "double_value", "doubl_value", ["alerts.yml:", "'doubl_value'", "alerts.stale", "'double_value'"]),
    "in an alert": ("resources/alerts.yml", "user_email:", "user_mail:", ["alerts.yml:", "'user_mail'", "subscriptions", "'user_email'"]),
    "alert without a query": ("resources/alerts.yml", "query_text", "file_path", ["alerts.stale", "no 'query_text'"]),
    "dashboard": ("resources/dashboard.yml", "dataset_schema", "dataset_shema", ["dashboard.yml:", "'dataset_shema'", "'dataset_schema'"]),
    "warehouse": ("resources/dashboard.yml", "custom_tags", "costom_tags", ["dashboard.yml:", "'costom_tags'", "sql_warehouses.dashboard"]),
    "cluster": (
        "resources/exploration.cluster.yml",
        "autotermination_minutes",
        "autotermination",
        ["exploration.cluster.yml:", "'autotermination'"],
    ),
    "job": (JOB, "max_concurrent_runs", "max_concurent_runs", [f"{JOB}:", "'max_concurent_runs'", "jobs.full_streaming_pipeline"]),
    "job schedule": (JOB, "timezone_id", "timezone", [f"{JOB}:", "'timezone'", "jobs.full_streaming_pipeline.schedule"]),
    "task": (JOB, "run_if: NONE_FAILED", "runif: NONE_FAILED", [f"{JOB}:", "'runif'", "'04_score_silver_to_gold'", "'run_if'"]),
    "task by anchor": (JOB, "max_retries: 2", "max_retriez: 2", [f"{JOB}:", "'max_retriez'", "'01_stream_kafka_to_bronze'"]),
    "task by override": (
        "resources/compute.yml",
        "  job_cluster_key: main\n  libraries",
        "  job_cluster_kez: main\n  libraries",
        ["resources/compute.yml:", "'job_cluster_kez'", "'backfill_bronze'"],
    ),
    "override of no task": (
        "resources/compute.yml",
        "task_key: check_champion,",
        "task_key: chek_champion,",
        ["'chek_champion'", "nothing to do"],
    ),
    "in a task": (JOB, "base_parameters:", "base_parametres:", [f"{JOB}:", "'base_parametres'", "'05_send_alerts'", "notebook_task"]),
    "in a complex variable": (
        "databricks.yml",
        "first_on_demand",
        "first_on_demnd",
        ["databricks.yml:", "'first_on_demnd'", "azure_attributes"],
    ),
    "key given twice": (JOB, "      queue:", "      timeout_seconds: 1\n      queue:", [f"{JOB}:", "'timeout_seconds' is given twice"]),
    "retries in words": (JOB, "max_retries: 2", "max_retries: two", [f"{JOB}:14", "'max_retries'", "'01_stream", "'two'", "from -1"]),
    "retries below -1": (JOB, "max_retries: 2", "max_retries: -2", [f"{JOB}:14", "'max_retries'", "'01_stream_kafka_to_bronze'", "-2"]),
    "half a pause": (JOB, "interval_millis: 30000", "interval_millis: 0.5", [f"{JOB}:15", "'min_retry_interval_millis'", "0.5"]),
    "a task's time in words": (
        JOB,
        "timeout_seconds: 7200",
        "timeout_seconds: soon",
        [f"{JOB}:", "'timeout_seconds'", "'01_stream", "'soon'"],
    ),
    "a job's negative time": (JOB, "timeout_seconds: 14400", "timeout_seconds: -1", [f"{JOB}:38", "jobs.full_streaming_pipeline is -1"]),
    "a job's time without end": (JOB, "timeout_seconds: 14400", f"timeout_seconds: {10**12}", [f"{JOB}:38", "2147483647"]),
    "runs at a time": (JOB, "max_concurrent_runs: 1", "max_concurrent_runs: true", [f"{JOB}:", "'max_concurrent_runs'", "True"]),
    "task given twice": (
        JOB,
        "task_key: check_champion\n          depends",
        "task_key: has_champion\n          depends",
        ["'has_champion' is given twice"],
    ),
    "unknown variable": (JOB, "${var.features}", "${var.featurs}", [f"{JOB}:", "${var.featurs}", "no 'featurs' in var", "features"]),
    "unknown resource": (JOB, "${resources.volumes.runs.", "${resources.volumes.run.", [f"{JOB}:", "no 'run' in resources.volumes"]),
    "unknown field": (JOB, "runs.volume_path", "runs.path", [f"{JOB}:", "no 'path' in resources.volumes.runs"]),
    "not a reference": (JOB, "${var.contamination}", "${var.contamination", [f"{JOB}:", "is not a reference"]),
    "bad YAML": (JOB, "      queue:\n", "      queue: [\n", [f"{JOB}:", "not valid YAML"]),
    "include without files": (
        "databricks.yml",
        "resources/*.yml",
        "resource/*.yml",
        ["databricks.yml", "'resource/*.yml' matches no file"],
    ),
    "defined twice": (
        "resources/model.yml",
        "resources:",
        "resources:\n  secret_scopes: {connections: {name: x}}",
        ["connections", "another file"],
    ),
    "one key for two resources": (
        "resources/model.yml",
        "    trainings:",
        "    pipeline:",
        ["'pipeline'", "schemas.pipeline", "experiments.pipeline", "once"],
    ),
    "no mapping": (
        "resources/storage.yml",
        "    pipeline:\n      catalog_name: ${var.catalog}",
        "    pipeline: x\n    other:\n      catalog_name: x",
        ["resources/storage.yml:", "must be a mapping"],
    ),
    "nothing left of a resource": (
        "resources/model.yml",
        "      name: ${var.experiment}",
        "      tags: []",
        ["experiments.trainings", "no 'name'"],
    ),
}


def test_the_continuous_job_of_the_docs_is_one_for_its_target_alone(copy):
    shown = re.search(r"^```yaml\n(.*?)^```", (ROOT / "docs" / "continuous.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)[1]
    (copy / "resources" / "continuously.job.yml").write_text(shown, encoding="utf-8")
    job = load_bundle(copy, "serverless").jobs["continuously"]
    assert job["continuous"] == {"pause_status": "UNPAUSED", "task_retry_mode": "NEVER"}
    assert "continuously" not in load_bundle(copy).jobs


@pytest.mark.parametrize("slip", BROKEN)
def test_a_slip_is_refused_with_its_file_and_key(copy, slip):
    name, old, new, expected = BROKEN[slip]
    text = (copy / name).read_text(encoding="utf-8")
    assert old in text
    (copy / name).write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(UsageError) as refused:
        load_bundle(copy, local_home=copy)
    assert all(part in str(refused.value) for part in expected), str(refused.value)
    assert str(refused.value).count("\n") == 0


def test_circles_end_with_the_way_round(small):
    root = small("""
bundle: {name: b}
variables:
  a: {default: "${var.b}"}
  b: {default: "x${var.c}"}
  c: {default: "${var.a}"}
targets: {dev: {}}
resources:
  secret_scopes: {s: {name: "${var.a}"}}
""")
    with pytest.raises(UsageError, match=r"circle: var.a → var.b → var.c → var.a"):
        load_bundle(root)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "'bundle' with a 'name' is missing"),
        ("- a\n- b\n", "expected keys"),
        ("bundle: {name: b}\ntargets: [dev]\n", "databricks.yml:2: 'targets' must be a mapping"),
        ("bundle: {name: b}\ntargets: {dev: x}\n", "databricks.yml:2: 'dev' must be a mapping"),
        ("bundle: {name: b}\nvariables: 3\ntargets: {dev: {}}\n", "databricks.yml:2: 'variables' must be a mapping"),
        ("bundle: {name: b}\nresources: {jobs: [a]}\ntargets: {dev: {}}\n", "databricks.yml:2: 'jobs' must be a mapping"),
        ("bundle: {name: b}\ntargets: {dev: {}}\nresources: {jobs: {j: {name: j, tasks: [a]}}}\n", "databricks.yml:3: "),
        ("bundle: {name: b}\ntargets: {dev: {}}\nresources: {jobs: {j: {name: j, tasks: {a: b}}}}\n", "databricks.yml:3: "),
        ("bundle: {name: b}\ntargets: {dev: {}}\nresources: {jobs: {j: {name: j, tasks: [{max_retries: 1}]}}}\n", "has no 'task_key'"),
        (
            "bundle: {name: b}\ntargets: {dev: {}}\nresources: {jobs: {j: {name: j, tasks: x}}}\n",
            "databricks.yml:3: 'tasks' of resources.jobs.j",
        ),
        ("bundle: {name: b}\ntargets: {dev: {}}\nresources: {jobs: {j: {name: 1, tasks: []}}}\n", "resources.jobs.j has no 'name'"),
        ("bundle: {name: b}\ntargets: {dev: {}}\nresources: {jobs: {j: {name: j, queue: true}}}\n", "'queue' of resources.jobs.j"),
        ("bundle: {name: b}\ntargets: {dev: {mode: devel}}\n", "databricks.yml:2: mode 'devel' is not known"),
        ("bundle: {name: b}\nvariables: {v: {lookup: x}}\ntargets: {dev: {}}\n", "databricks.yml:2: 'lookup' must be a mapping"),
        ("bundle: {name: b}\n? [a, b]\n: c\n", "databricks.yml:2: not valid YAML: a key must be a plain text"),
        ("bundle: {name: b}\n\tx: 1\n", "databricks.yml:2: not valid YAML"),
        ("bundle: {name: b\x00}\n", "databricks.yml: not valid YAML"),
    ],
)
def test_a_file_of_another_shape_is_refused_in_one_sentence(small, text, expected):
    with pytest.raises(UsageError) as refused:
        load_bundle(small(text))
    assert expected in str(refused.value)
    assert str(refused.value).count("\n") == 0


def grown(first, of_the_last, levels=6):
    """Lines of which each holds the one before it nine times."""
    return "\n".join([first, *[of_the_last(number, number - 1) for number in range(1, levels + 1)]])


ALIASES = grown("a0: &a0 [x, x, x]", lambda n, last: f"a{n}: &a{n} [{', '.join(9 * [f'*a{last}'])}]")
MERGES = grown("a0: &a0 {x: 1}", lambda n, last: f"a{n}: &a{n} {{<<: [{', '.join(9 * [f'*a{last}'])}]}}")
TEXTS = grown("  v0: {default: x}", lambda n, last: f'  v{n}: {{default: "{9 * f"${{var.v{last}}}"}"}}')
USED = "resources: {secret_scopes: {s: {name: '${var.v6}x'}}}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (ALIASES, "its aliases (*name) repeat so much"),
        (MERGES, "its aliases (*name) repeat so much"),
        ("a: &a [*a]", "or one holds itself"),
        ("a: &a {b: *a}", "or one holds itself"),
        (f"a: {'[' * 3000}{']' * 3000}", "nested too deep"),
        (f"variables:\n{TEXTS}\n{USED}", "references to follow"),
        (f"variables:\n{TEXTS.replace('x', 'x' * 1000)}\n{USED}", "has grown to"),
        (f"a: {'x' * 300_000}", "more than 200,000 characters"),
    ],
)
def test_yaml_that_grows_without_end_is_refused_in_one_sentence(small, text, expected):
    with pytest.raises(UsageError, match=r"databricks\.yml") as refused:
        load_bundle(small(f"bundle: {{name: b}}\ntargets: {{dev: {{}}}}\n{text}\n"))
    assert expected in str(refused.value)


def test_a_folder_without_a_bundle_says_so(tmp_path):
    with pytest.raises(UsageError, match=r"databricks.yml cannot be read .*run this in the project's folder"):
        load_bundle(tmp_path)
