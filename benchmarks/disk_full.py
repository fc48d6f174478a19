"""What does a full disk do? The tables and checkpoints lie on a small disk of their own, which fills up in the middle of a run.

The disk is a tmpfs in a mount namespace of this process, so that no rights are needed beyond those to make one.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench import fresh_home, own_settings, table, write_section
from pyspark.sql import SparkSession

from laptop.services.broker import running_broker
from laptop.services.spark import start_session
from streaming_pipeline.core.errors import PipelineError
from streaming_pipeline.core.run_log import log_task
from streaming_pipeline.core.settings import Settings
from streaming_pipeline.events import synthetic
from streaming_pipeline.events.producer import produce
from streaming_pipeline.tasks import TASKS, Context

DISK_MB = 200
STAGES = (("bronze", "01_stream_kafka_to_bronze"), ("silver", "02_bronze_to_silver_cleanse"), ("monitoring", "03_monitor_silver_events"))
TABLES = ("bronze_events", "silver_events", "quarantined_events", "duplicate_events")


def call(stage: str, spark: SparkSession, settings: Settings) -> Any:
    """Run a stage as its notebook does; returns what it has done."""
    return log_task(stage, lambda: TASKS[stage].call(Context(spark, settings, {}, dict)), spark, settings).value


def fill(disk: Path, leave_kb: int) -> Path:
    """Take all of the disk but so much."""
    filler = disk / "filler"
    with filler.open("wb") as file:
        file.write(bytes(max(0, shutil.disk_usage(disk).free - leave_kb * 1024)))
    return filler


def main() -> None:
    """Let bronze and silver meet a full disk, then make room; writes the section of RESULTS.md."""
    home = fresh_home("disk_full")
    disk = home / "warehouse"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(disk)], check=True)
    rows = []
    with running_broker(home) as broker:
        broker.create_topic("events")
        kafka = broker.kafka_settings("SSL", "events")
        spark = start_session(home)
        on_disk = {"checkpoint_dir": str(disk / "checkpoints")}
        settings = own_settings(home, "disk", kafka_topic="events", secrets=broker.secrets("SSL", "events"), **on_disk)
        count = lambda: {name: spark.table(settings.table(name)).count() for name in TABLES}  # noqa: E731

        def run(through: int = len(STAGES)):
            result = None
            for _, stage in STAGES[:through]:
                result = call(stage, spark, settings)
            return result

        produce(kafka, synthetic.generate(5_000, seed=1))
        run()
        sent = 5_000
        for index, (name, stage) in enumerate(STAGES[:2]):
            for leave_kb in (0, 40, 400):
                produce(kafka, synthetic.generate(20_000, seed=100 * index + leave_kb))
                sent += 20_000
                run(index)  # what stands before this stage has its room
                before = count()
                filler = fill(disk, leave_kb)
                try:
                    call(stage, spark, settings)
                    said = "(it had room enough)"
                except PipelineError as refused:
                    said = str(refused)
                during = count()
                filler.unlink()
                look = run()
                law = look.unaccounted_records == 0 and look.lost_records == 0 and look.kafka_lag_records == 0
                whole = all(during[table_name] >= before[table_name] for table_name in TABLES)
                rows.append([name, leave_kb, said.replace("|", "/")[:160], "yes" if whole else "NO", "yes" if law else "NO"])
                assert law and whole, rows
        spark.stop()
    write_section(
        "Disk full",
        f"A disk of {DISK_MB} MB that is filled up to the last so many kB before a stage writes 20,000 records; then room is made and the "
        "job runs again.\n\n" + table(["stage", "kB left", "what is said", "tables whole", "then every record in its place"], rows),
    )


if __name__ == "__main__":
    if os.environ.get("DISK_FULL_NAMESPACE") != "own":
        os.environ["DISK_FULL_NAMESPACE"] = "own"
        os.execvp("unshare", ["unshare", "--map-root-user", "--mount", sys.executable, *sys.argv])
    main()
