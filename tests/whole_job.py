"""A pipeline of its own for a test: schema, topic, checkpoints, and the job of the bundle that fills them."""

import io
import uuid
from pathlib import Path

from rich.console import Console

from laptop.bundle.load import load_bundle
from laptop.jobs.reporter import Reporter
from laptop.jobs.runner import run_job
from laptop.run import MAIN_JOB, prepare_mlflow
from streaming_pipeline.core.settings import PLAIN_KEYS, Settings
from streaming_pipeline.events import synthetic
from streaming_pipeline.events.producer import produce
from streaming_pipeline.queries import query

ROOT = Path(__file__).parents[1]
DATA = ("bronze_events", "silver_events", "quarantined_events", "duplicate_events", "gold_anomaly_predictions")


class Pipeline:
    """One schema, topic and set of checkpoints, and the job that fills them."""

    def __init__(self, spark, home, broker, mail, folder, root=ROOT):
        self.spark, self.home, self.folder, self.root = spark, home, folder, root
        self.schema = f"p_{uuid.uuid4().hex[:8]}"
        self.topic = f"events-{self.schema}"
        broker.create_topic(self.topic)
        self.secrets = {**broker.secrets("SSL", self.topic), **mail}
        self.kafka = broker.kafka_settings("SSL", self.topic)
        self.settings = Settings(catalog="spark_catalog", schema=self.schema, config_dir=str(ROOT / "config"))
        self.parameters = {
            "schema": self.schema,
            "runs_dir": str(folder / "runs"),
            "checkpoint_dir": str(folder / "checkpoints"),
            "kafka_topic": self.topic,
        }
        self.truth = folder / "ground_truth.jsonl"
        self.console = Console(file=io.StringIO(), width=160)

    def produce(self, count, seed=1, faults=None):
        """Put events on the topic; returns how many records that were."""
        events = synthetic.generate(count, seed=seed, faults=faults)
        produce(self.kafka, events)
        synthetic.write_ground_truth(self.truth, events.truth)
        return len(events)

    def run(self, job=MAIN_JOB, show_tables=False, **parameters):
        """Run a job of the bundle on this pipeline's own tables."""
        bundle = load_bundle(self.root, local_home=self.home)
        prepare_mlflow(self.home, bundle, {})
        run_id = uuid.uuid4().hex[:8]
        declared = {parameter["name"] for parameter in bundle.job(job)["parameters"]}
        return run_job(
            bundle,
            job,
            parameters={**{name: value for name, value in self.parameters.items() if name in declared}, **parameters},
            spark_for_task=lambda _: self.spark.newSession(),
            secrets=self.secrets,
            plain=PLAIN_KEYS,
            run_dir=self.folder / "runs" / run_id,
            run_id=run_id,
            reporter=Reporter(self.console),
            show_tables=show_tables,
        )

    def states(self, run):
        return {task.key: task.state for task in run.tasks}

    def counts(self):
        return {name: self.spark.table(self.settings.table(name)).count() for name in DATA}

    def looks(self):
        self.spark.sql(f"USE `{self.schema}`")
        return self.spark.sql(query("monitor_logs")).collect()
