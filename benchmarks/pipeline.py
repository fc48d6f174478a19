"""How fast is the data path? Each stage against a bare append of the same topic, in one run on one machine.

The bare append is Spark's Kafka source into a Delta table, without parsing: what nobody can do without. It is measured before and
after the stages, and its mean counts.
"""

import argparse
import io
import logging
from pathlib import Path

from bench import ROOT, PeakMemory, fresh_home, own_settings, seconds, table, write_section
from rich.console import Console

from laptop.bundle.load import load_bundle
from laptop.run import prepare_mlflow, run_on_laptop
from laptop.services.broker import running_broker
from laptop.services.spark import start_session
from streaming_pipeline.bronze.ingest import stream_kafka_to_bronze
from streaming_pipeline.core.settings import KafkaSettings, Settings
from streaming_pipeline.events import synthetic
from streaming_pipeline.events.producer import produce
from streaming_pipeline.gold.score import score_silver_to_gold
from streaming_pipeline.gold.training import train
from streaming_pipeline.kafka import connection as kafka
from streaming_pipeline.monitoring.monitor import monitor_silver_events
from streaming_pipeline.silver.cleanse import cleanse_bronze_to_silver

EVENTS, WARM_UP_EVENTS = 5_000_000, 200_000


def bare_append(spark, connection: KafkaSettings, settings: Settings, name: str) -> None:
    """Kafka → Delta, as records come, in batches of the same size."""
    spark.sql(f"CREATE SCHEMA IF NOT EXISTS `{settings.schema}`")
    source = (
        spark.readStream.format("kafka")
        .options(**kafka.spark_options(connection))
        .option("startingOffsets", "earliest")
        .option("maxOffsetsPerTrigger", settings.max_offsets_per_trigger)
        .load()
    )
    writer = source.writeStream.format("delta").option("checkpointLocation", settings.checkpoint(name)).trigger(availableNow=True)
    writer.toTable(settings.table(name)).awaitTermination()


def whole_job_seconds(home: Path, settings: Settings) -> float:
    """The bundle's own job, all its tasks and notebooks, in the session that is there."""
    parameters = {name: getattr(settings, name) for name in ("schema", "checkpoint_dir", "kafka_topic")}
    run, _ = run_on_laptop(home, parameters=parameters, secrets=settings.secrets, console=Console(file=io.StringIO()))
    assert run.state == "SUCCESS"
    return run.seconds


def main() -> None:
    """Run all, and write the section of RESULTS.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=EVENTS)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    home = fresh_home("pipeline")
    with running_broker(home) as broker:
        spark = start_session(home)
        logging.getLogger("mlflow").setLevel(logging.ERROR)
        prepare_mlflow(home, load_bundle(ROOT, local_home=home), {})

        def settings_for(topic: str, count: int) -> Settings:
            broker.create_topic(topic)
            produce(broker.kafka_settings("SSL", topic), synthetic.generate(count, seed=options.seed))
            return own_settings(home, topic, run_id=topic, kafka_topic=topic, secrets=broker.secrets("SSL", topic))

        def measure(settings: Settings) -> tuple[dict[str, float], list[tuple[str, float]], int]:
            took = {}
            steps = []
            took["before"], _ = seconds(lambda: bare_append(spark, settings.kafka, settings, "bare_before"))
            took["bronze"], ingested = seconds(lambda: stream_kafka_to_bronze(spark, settings))
            took["silver"], cleansed = seconds(lambda: cleanse_bronze_to_silver(spark, settings))
            took["monitoring"], look = seconds(lambda: monitor_silver_events(spark, settings))
            assert look.unaccounted_records == 0 and look.lost_records == 0 and look.kafka_lag_records == 0, look
            train(spark, settings)
            took["gold"], scored = seconds(lambda: score_silver_to_gold(spark, settings))
            assert scored.records == cleansed.records == look.records
            took["after"], _ = seconds(lambda: bare_append(spark, settings.kafka, settings, "bare_after"))
            for step in (*cleansed.steps, *scored.steps):
                steps.append((step.task, step.elapsed_seconds))
            return took, steps, ingested.records

        measure(settings_for("warm_up", WARM_UP_EVENTS))
        settings = settings_for("events", options.events)
        with PeakMemory(leave_out=lambda: {broker.status().pid}) as memory:
            took, steps, records = measure(settings)
        idle = [whole_job_seconds(home, settings) for _ in range(4)]
        spark.stop()

    bare = (took["before"] + took["after"]) / 2
    stages = ("bronze", "silver", "monitoring", "gold")
    whole = sum(took[stage] for stage in stages)
    others = whole - took["monitoring"]
    rows = [
        [name, f"{took_seconds:.1f}", f"{records / took_seconds:,.0f}", f"{bare / took_seconds:.2f}"]
        for name, took_seconds in [("bare append", bare), *((stage, took[stage]) for stage in stages), ("all four", whole)]
    ]
    goals = [
        ["bronze + silver + monitoring + gold against bare append", "≥ 0.20", f"{bare / whole:.3f}"],
        ["silver alone against bare append", "≥ 0.60", f"{bare / took['silver']:.3f}"],
        ["monitoring against all other stages", "≤ 0.10", f"{took['monitoring'] / others:.3f}"],
        ["whole job with nothing new, warm session, all tasks (best of three after a first)", "≤ 10 s", f"{min(idle[1:]):.1f} s"],
        ["most memory at once, Spark and Python workers", "≤ 4 GB", f"{memory.bytes / 2**30:.1f} GiB"],
    ]
    names = dict.fromkeys(name for name, _ in steps)
    sums = [[name, f"{sum(s for n, s in steps if n == name):.1f}", sum(n == name for n, _ in steps)] for name in names]
    held = ", ".join(f"{kind} {size / 2**30:.1f}" for kind, size in sorted(memory.by_kind.items(), key=lambda item: -item[1])[:3])
    write_section(
        "Pipeline" if options.events == EVENTS else f"Pipeline, {options.events:,} events",
        f"{records:,} records, batches of {settings.max_offsets_per_trigger:,}; bare append {took['before']:.1f} s before the stages, "
        f"{took['after']:.1f} s after.\n\n"
        + table(["", "seconds", "records per second", "against bare append"], rows)
        + "\n\n"
        + table(["measure", "goal", "measured"], goals)
        + "\n\nSteps of the stages, all batches together:\n\n"
        + table(["step", "seconds", "batches"], sums)
        + f"\n\nMemory by kind of process at that moment, GiB: {held}. "
        f"The whole job with nothing new, four times: {', '.join(f'{s:.1f}' for s in idle)} s.",
    )


if __name__ == "__main__":
    main()
