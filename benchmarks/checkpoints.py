"""Is nothing lost and nothing twice when a checkpoint is damaged, or older than its table? In each case the checkpoints of bronze, silver
and gold are damaged at random, new records arrive, and the stages run.

A stage may refuse with a sentence, and runs again then, as the job's retries let it. After each case the topic itself, as
another client reads it, says what each table must hold.
"""

import argparse
import collections
import math
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import ROOT, TINY_TABLES, fresh_home, own_settings, table, topic_records, write_section
from pyspark.sql import SparkSession

from laptop.bundle.load import load_bundle
from laptop.run import prepare_mlflow
from laptop.services.broker import running_broker
from laptop.services.spark import start_session
from streaming_pipeline.bronze.ingest import bronze_checkpoint, stream_kafka_to_bronze
from streaming_pipeline.core.errors import PipelineError
from streaming_pipeline.core.settings import Settings
from streaming_pipeline.events.producer import LineRecords, produce
from streaming_pipeline.events.synthetic import generate
from streaming_pipeline.gold.score import score_silver_to_gold
from streaming_pipeline.gold.training import train
from streaming_pipeline.kafka.connection import topic_offsets
from streaming_pipeline.monitoring.monitor import monitor_silver_events
from streaming_pipeline.silver.cleanse import cleanse_bronze_to_silver

STAGES: dict[str, Callable[[SparkSession, Settings], Any]] = {
    "bronze": stream_kafka_to_bronze,
    "silver": cleanse_bronze_to_silver,
    "gold": score_silver_to_gold,
}
BEFORE_TRAINING, MOST_KEPT = 1_000, 6


def damage(checkpoint: Path, earlier: list[Path], rng: random.Random) -> str:
    """Damage a checkpoint in one of many ways; returns what was done.

    `earlier` are copies of it as it was after former runs, the newest last.
    """
    files = sorted(path for path in checkpoint.rglob("*") if path.is_file() and not path.name.endswith(".crc"))
    if not files:
        return "nothing was there"
    how = rng.choice(["set back", "newest batches", "newest batches", "files", "files", "files", "nothing"])
    if how == "set back" and earlier:
        copy = rng.choice(earlier)
        shutil.rmtree(checkpoint)
        shutil.copytree(copy, checkpoint)
        return f"set back as a whole to what it was {len(earlier) - earlier.index(copy)} runs ago"
    if how == "newest batches":
        kinds = rng.choice([("offsets", "commits"), ("commits",), ("offsets",)])
        count = rng.randint(1, 4)
        for kind in kinds:
            batches = sorted((checkpoint / kind).glob("[0-9]*"), key=lambda file: int(file.name))
            for file in batches[-count:]:
                remove(file, with_checksum=True)
        gone = rng.random() < 0.3 and (checkpoint / "metadata").exists()
        if gone:
            remove(checkpoint / "metadata", with_checksum=True)
        return f"the newest {count} of {' and '.join(kinds)}{' and metadata' if gone else ''} removed"
    if how == "files":
        done = []
        for file in rng.sample(files, min(len(files), rng.choice([1, 1, 2, 3, len(files)]))):
            action, with_checksum = rng.choice(["removed", "emptied", "set back"]), rng.random() < 0.5
            older = (
                [path for path in file.parent.glob("[0-9]*") if path.name.isdigit() and int(path.name) < int(file.name)]
                if (file.name.isdigit())
                else []
            )
            if action == "removed":
                remove(file, with_checksum)
            elif action == "emptied" or not older:
                file.write_bytes(b"")
                action = "emptied"
            else:
                content = rng.choice(older).read_bytes()
                if with_checksum:
                    remove(file, with_checksum=True)
                file.write_bytes(content)
            done.append(f"{file.relative_to(checkpoint)} {action}")
        return ", ".join(sorted(done))
    return "nothing"


def remove(file: Path, with_checksum: bool) -> None:
    """Remove a file, and Hadoop's checksum beside it or not."""
    file.unlink(missing_ok=True)
    if with_checksum:
        (file.parent / f".{file.name}.crc").unlink(missing_ok=True)


def run_stage(spark: SparkSession, settings: Settings, stage: str) -> str:
    """Run a stage, and again if it refuses with a sentence: returns "ran", "went on" if its note tells of the checkpoint, or "refused"."""
    try:
        note = STAGES[stage](spark, settings).note
        return "went on" if "checkpoint" in note else "ran"
    except PipelineError as refusal:
        if "\n" in str(refusal):
            raise
        STAGES[stage](spark, settings)
        return "refused"


def verdict(spark: SparkSession, settings: Settings) -> dict[str, int]:
    """What is wrong in the tables, by name; all zero if each record of the topic is in its one place."""

    def places(name: str) -> collections.Counter[tuple[int, int]]:
        return collections.Counter(tuple(row) for row in spark.table(settings.table(name)).select("partition", "offset").collect())

    topic = set(topic_records(settings.kafka))
    bronze, silver, gold = places("bronze_events"), places("silver_events"), places("gold_anomaly_predictions")
    placed = silver + places("quarantined_events") + places("duplicate_events")
    wrong = {}
    for name, held, expected in (("bronze", bronze, topic), ("silver and beside it", placed, topic), ("gold", gold, set(silver))):
        wrong[f"{name}: lost"] = len(expected - set(held))
        wrong[f"{name}: twice"] = sum(count - 1 for count in held.values())
        wrong[f"{name}: from nowhere"] = len(set(held) - expected)
    return wrong


class Cases:
    """One topic and its tables, damaged again and again."""

    def __init__(self, spark: SparkSession, settings: Settings, folder: Path) -> None:
        self.spark, self.settings, self.folder = spark, settings, folder
        self.outcomes: collections.Counter[tuple[str, str]] = collections.Counter()
        topic = topic_offsets(settings.kafka).info
        self.checkpoints = {
            "bronze": Path(bronze_checkpoint(settings, topic)),
            **{name: Path(settings.checkpoint(name)) for name in ("silver", "gold")},
        }
        self.earlier: dict[str, list[Path]] = {name: [] for name in STAGES}
        self.produced = 0

    def produce(self, count: int) -> None:
        """Put new events on the topic, with re-deliveries and rejected ones among them."""
        events = list(generate(count, seed=self.produced))
        produce(self.settings.kafka, [*events, *events[:2], *LineRecords([b"{}", b"no event"])])
        self.produced += count

    def case(self, seed: int) -> dict[str, str]:
        """One case: up to two runs that are left alone, damage, new records, a run. Returns what was done to each checkpoint.

        Raises `AssertionError` if a record is lost or twice, or monitoring does not say that all are there.
        """
        rng = random.Random(seed)
        for _ in range(rng.randint(0, 2)):
            self.produce(rng.randint(5, 40))
            for stage, run in STAGES.items():
                run(self.spark, self.settings)
                self.keep(stage)
        done = {stage: damage(self.checkpoints[stage], self.earlier[stage], rng) for stage in STAGES}
        if rng.random() < 0.8:
            self.produce(rng.randint(5, 40))
        for stage in STAGES:
            self.outcomes[stage, run_stage(self.spark, self.settings, stage)] += 1
            self.keep(stage)
        wrong = {name: count for name, count in verdict(self.spark, self.settings).items() if count}
        assert not wrong, (seed, done, wrong)
        look = monitor_silver_events(self.spark, self.settings)
        found = look.unaccounted_records, look.lost_records, look.kafka_lag_records
        assert found == (0, 0, 0), (seed, done, found)
        return done

    def keep(self, stage: str) -> None:
        """Keep a copy of a checkpoint as it is now, for a later case to set it back to."""
        kept = self.earlier[stage]
        copy = self.folder / f"{stage}-{sum(map(len, self.earlier.values()))}-{self.produced}-{sum(self.outcomes.values())}"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(self.checkpoints[stage], copy)
        if copy not in kept:
            kept.append(copy)
        for old in kept[:-MOST_KEPT]:
            shutil.rmtree(old)
        self.earlier[stage] = kept[-MOST_KEPT:]


def begin(spark: SparkSession, settings: Settings, folder: Path) -> Cases:
    """Tables with a first run's events, and a champion."""
    cases = Cases(spark, settings, folder)
    cases.produce(BEFORE_TRAINING)
    for stage in ("bronze", "silver"):
        STAGES[stage](spark, settings)
    train(spark, settings)
    STAGES["gold"](spark, settings)
    return cases


def main() -> None:
    """Run the cases, and write the section of RESULTS.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin no case after so many (default: all cases)")
    options = parser.parse_args()
    home = fresh_home("checkpoints")
    with running_broker(home) as broker:
        broker.create_topic("checkpoints", partitions=3)
        spark = start_session(home, confs=TINY_TABLES)
        prepare_mlflow(home, load_bundle(ROOT, local_home=home), {})
        settings = own_settings(home, "checkpoints", kafka_topic="checkpoints", secrets=broker.secrets("SSL"), max_offsets_per_trigger=20)
        cases = begin(spark, settings, home / "copies")
        began, done_cases = time.monotonic(), 0
        for number in range(options.cases):
            if time.monotonic() - began > 60 * options.minutes:
                break
            done = cases.case(options.seed * 10_000 + number)
            done_cases += 1
            print(f"{done_cases:4} {done}", flush=True)
        wrong = verdict(spark, settings)
        spark.stop()
    assert not any(wrong.values())
    kinds = ("ran", "went on", "refused")
    write_section(
        "Damaged checkpoints",
        f"{done_cases} cases (seed {options.seed}), in each of which the checkpoints of all three stages were damaged: files removed, "
        "emptied, set back to what an older batch said, or the whole folder set back by up to six runs; then new records, and a run. "
        "After each case the tables were held against the topic and `monitor_logs` was asked: nothing lost, nothing twice.\n\n"
        + table(
            ["stage", "ran as ever", "went on from its table, and said so", "refused with a sentence, and ran when started again"],
            [[stage, *(cases.outcomes[stage, kind] for kind in kinds)] for stage in STAGES],
        )
        + "\n\n"
        + table(["", "records"], list(wrong.items())),
    )


if __name__ == "__main__":
    main()
