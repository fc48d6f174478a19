"""One run of a job of the bundle on this machine: its Kafka, its Spark, its MLflow store, its folder."""

import logging
import os
import secrets as random
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from pyspark.sql import SparkSession
from rich.console import Console

from laptop.bundle.load import LOCAL_CATALOG, Bundle, load_bundle
from laptop.env import read_secrets
from laptop.folders import find_bundle
from laptop.jobs.graph import check_job, check_parameters
from laptop.jobs.records import JobRun
from laptop.jobs.reporter import Reporter
from laptop.jobs.run_page import EVENT_LOG
from laptop.jobs.runner import run_job
from laptop.services.broker import Broker, running_broker
from laptop.services.spark import new_session, start_session
from streaming_pipeline.alerts.rules import load_rules
from streaming_pipeline.core.contract import load_contract
from streaming_pipeline.core.errors import PipelineError, UsageError
from streaming_pipeline.core.settings import DEFAULT_TOPIC, PLAIN_KEYS, Settings, check_topic

MAIN_JOB = "full_streaming_pipeline"
SETTINGS = {field.name for field in fields(Settings)} - {"secrets"}


CONFIG_FILES = ("event_contract.yml", "alert_rules.yml", "prices.yml")


def config_dir(home: Path, shipped: str | Path) -> str:
    """`config_dir` for a home: its folder `config`, if it has one, and behind it the shipped one, for what that lacks.

    Raises `UsageError` for a file there that nobody would read, such as event_contract.yaml.
    """
    own = home.resolve() / "config"
    try:
        strange = [file.name for file in sorted(own.iterdir()) if file.suffix in (".yml", ".yaml") and file.name not in CONFIG_FILES]
    except FileNotFoundError:
        return str(shipped)
    except OSError as error:
        raise UsageError(f"{own}, the configuration of this home, cannot be read ({error.strerror}): fix it, or move it away.") from None
    if strange:
        raise UsageError(f"{own / strange[0]} is none of {', '.join(CONFIG_FILES)}: rename it, or move it away.")
    if "\n" in str(own):
        raise UsageError(f"{str(own)!r} has a line end in its name, and cannot hold a configuration: name another --home.")
    return f"{own}\n{shipped}"


def config_settings(home: Path, root: Path) -> Settings:
    """Settings that say where the files of a home's configuration are."""
    return Settings(catalog=LOCAL_CATALOG, config_dir=config_dir(home, root / "config"))


def say_config(settings: Settings, root: Path) -> None:
    """Say on standard error which files are used instead of those of the bundle, if any are."""
    for own in dict.fromkeys(settings.config_dir.split("\n")):
        names = [name for name in CONFIG_FILES if settings.config_file(name) == f"{own.rstrip('/')}/{name}"]
        if names and Path(own) != root / "config":
            print(f"Configuration of {own}: {', '.join(names)}", file=sys.stderr)


@contextmanager
def kafka_secrets(home: Path, found: dict[str, str], only_look: bool = False) -> Iterator[dict[str, str]]:
    """`found` of `.env` and the environment, if it names a Kafka; else with the local broker's, which runs until the block ends.

    With `only_look` no broker is made: raises `UsageError` if the home never had one.
    """
    if found.get("KAFKA_BOOTSTRAP_SERVERS"):
        yield found
        return
    partial = sorted(key for key in found if key.startswith("KAFKA_") and key != "KAFKA_TOPIC")
    if partial:
        raise UsageError(
            f"{', '.join(partial)} is set, but KAFKA_BOOTSTRAP_SERVERS is not: add it, or take all KAFKA_ settings out "
            "to use the local broker."
        )
    topic = found.get("KAFKA_TOPIC", DEFAULT_TOPIC)
    check_topic(topic)
    if only_look and not Broker(home).folder.exists():
        raise UsageError(f"{home.resolve()} has no broker yet: name another --home, or `streaming-pipeline produce` events there first.")
    with running_broker(home) as broker:
        broker.create_topic(topic)
        yield {**found, **broker.secrets("SSL", topic)}


@contextmanager
def only_run(home: Path) -> Iterator[None]:
    """Let no second run work on the same tables; raises `PipelineError` if one does already."""
    lock = FileLock(home / "run.lock")
    try:
        home.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise PipelineError(f"Another run is working on {home}: wait for its end, or give this one a home of its own (--home).") from None
    except OSError as error:
        raise PipelineError(f"The home folder {home} cannot be written ({error.strerror or error}): choose another --home.") from None
    try:
        yield
    finally:
        lock.release()


@dataclass(frozen=True)
class Laptop:
    """A job of the bundle and what it needs on this machine: Kafka's settings, a Spark session, the MLflow store."""

    home: Path
    bundle: Bundle
    job: str
    parameters: Mapping[str, str]
    secrets: Mapping[str, str]
    spark: SparkSession

    def run(
        self, run_id: str, reporter: Reporter, spark_for_task: Callable[[str], SparkSession] | None = None, show_tables: bool = True
    ) -> JobRun:
        """Run the job once; returns how it went. Each task has a new session, or what `spark_for_task` gives for its key."""
        return run_job(
            self.bundle,
            self.job,
            parameters=self.parameters,
            spark_for_task=spark_for_task or (lambda _: new_session(self.spark)),
            secrets=self.secrets,
            plain=PLAIN_KEYS,
            run_dir=self.home / "runs" / run_id,
            run_id=run_id,
            reporter=reporter,
            show_tables=show_tables,
        )


def new_run_id() -> str:
    """Names a run and its folder, in the order of time."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{random.token_hex(2)}"


@contextmanager
def laptop(
    home: Path,
    *,
    job: str = MAIN_JOB,
    parameters: Mapping[str, str] | None = None,
    target: str = "dev",
    variables: Mapping[str, str] | None = None,
    secrets: Mapping[str, str] | None = None,
    connect: bool = False,
    event_log: Path | None = None,
    confs: Mapping[str, str] | None = None,
) -> Iterator[Laptop]:
    """What runs a job of the bundle around this folder. Its broker, if it has one of its own, runs until the block ends; its Spark longer.

    `secrets` takes the place of `.env`, the environment and the local broker; `event_log` and `confs` are for Spark. Everything that can be
    wrong with the bundle, the parameters or `.env` is said before Spark or a broker is started.
    """
    root = find_bundle()
    home = home.resolve()
    bundle = load_bundle(root, target, local_home=home, variables=variables or {})
    parameters = dict(parameters or {})
    is_elsewhere = bool(parameters.get("config_dir"))
    check_job(bundle, job)
    defaults = {parameter["name"]: parameter.get("default") for parameter in bundle.job(job).get("parameters", [])}
    if is_elsewhere:  # as the shell means it; notebooks run in a folder of their own
        parameters["config_dir"] = str(Path(parameters["config_dir"]).resolve())
    elif "config_dir" in defaults:
        parameters["config_dir"] = config_dir(home, defaults["config_dir"])
    check_parameters(bundle.job(job), job, parameters)
    settings = Settings.from_parameters({"catalog": LOCAL_CATALOG} | {name: text for name, text in parameters.items() if name in SETTINGS})
    if is_elsewhere:
        load_contract(settings.contract_path)
    if "config_dir" in defaults:
        say_config(settings, root)
    if "features" in defaults:
        texts = {name: parameters.get(name, defaults[name]) for name in ("config_dir", "features")}
        asked = Settings.from_parameters({"catalog": LOCAL_CATALOG, **texts})
        # Here, since it brings MLflow with it, for which commands that run no job need not wait.
        from streaming_pipeline.gold import inputs

        inputs.features(load_contract(asked.contract_path), asked.features)
    if job == MAIN_JOB:  # its last task would say so after minutes
        load_rules(settings.alert_rules_path)
    catalog = settings.catalog if "catalog" in parameters else defaults.get("catalog", LOCAL_CATALOG)
    if catalog != LOCAL_CATALOG:
        raise UsageError(f"Parameter 'catalog' is {catalog!r}: a laptop has {LOCAL_CATALOG} alone, so leave it out (--param, --var).")
    found = read_secrets(root / ".env") if secrets is None else secrets
    asks_kafka = "secret_scope" in defaults
    with only_run(home), kafka_secrets(home, found) if secrets is None and asks_kafka else nullcontext(found) as known:
        spark = start_session(home, connect=connect, event_log=event_log, confs=confs)
        prepare_mlflow(home, bundle, parameters)
        yield Laptop(home, bundle, job, parameters, known, spark)


def run_on_laptop(home: Path, *, console: Console, **options: Any) -> tuple[JobRun, SparkSession]:
    """Run a job of the bundle around this folder once; returns how it went, and the Spark session that ran it. Options as of `laptop`."""
    run_id = new_run_id()
    with laptop(home, event_log=home.resolve() / "runs" / run_id / EVENT_LOG, **options) as ready:
        return ready.run(run_id, Reporter(console)), ready.spark


def prepare_mlflow(home: Path, bundle: Bundle, parameters: Mapping[str, str]) -> None:
    """Point MLflow at the home's store, and make the experiments there: MLflow's own would put artifacts into the current folder.

    Raises `PipelineError` for a store that cannot be used.
    """
    store = home / "mlflow"
    try:
        store.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PipelineError(f"{store} cannot be made ({error.strerror}): choose another --home.") from None
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{store / 'mlflow.db'}"
    os.environ.setdefault("MLFLOW_DISABLE_AGENT_HINTS", "true")
    import mlflow

    mlflow.set_tracking_uri(os.environ["MLFLOW_TRACKING_URI"])
    names = {experiment["name"] for experiment in bundle.resources.get("experiments", {}).values()}
    if "experiment" in parameters:
        names.add(parameters["experiment"])
    before = Path.cwd()
    os.chdir(store)  # where the store makes the `mlruns` of its default, which nothing uses
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.disable(logging.INFO)  # a new store announces each of its schema migrations, and sets up logging to that end itself
    try:
        for name in names:
            if mlflow.get_experiment_by_name(name) is None:
                mlflow.create_experiment(name, artifact_location=(store / "artifacts").as_uri())
    except Exception as error:  # SQLAlchemy and MLflow have many, of pages each
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise PipelineError(
            f"The models' store {store / 'mlflow.db'} cannot be used ({reason}): is it another user's? If it is damaged, restore it, or "
            f"move {store} away, and the next run trains a new model."
        ) from error
    finally:
        logging.disable(logging.NOTSET)
        os.chdir(before)
