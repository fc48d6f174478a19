"""Is nothing lost and nothing twice when the job is killed? SIGKILL at a random moment of each phase, while events keep arriving.

Each kill takes the whole process group: Python, JVM and workers at once. At the end the topic itself, read with confluent-kafka and
judged in plain Python, says what must be where.
"""

import argparse
import collections
import contextlib
import io
import json
import math
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from bench import QUICK_START, ROOT, fresh_home, table, topic_records, write_section
from pyspark.sql import SparkSession

from laptop.services.broker import Broker, running_broker
from laptop.services.spark import start_session
from streaming_pipeline.core.settings import KafkaSettings, Settings
from streaming_pipeline.events import synthetic
from streaming_pipeline.events.producer import produce

MAIN, MAINTENANCE, TRAINING = "full_streaming_pipeline", "table_maintenance", "train_anomaly_detector"
REPLAY, BACKFILL = "replay_quarantine", "backfill_bronze"
PHASES = {
    "bronze_stream": MAIN,
    "bronze_write": MAIN,
    "silver_extent": MAIN,
    "silver_write": MAIN,
    "quarantine_write": MAIN,
    "duplicates_write": MAIN,
    "gold_write": MAIN,
    "monitoring": MAIN,
    "findings_write": MAIN,
    "monitor_logs": MAIN,
    "contract_pin": MAIN,
    "task_logs": MAIN,
    "any_moment": MAIN,
    "model_log": TRAINING,
    "model_alias": TRAINING,
    "optimize": MAINTENANCE,
    "vacuum": MAINTENANCE,
    "replay_write": REPLAY,
    "replay_resolve": REPLAY,
    "backfill": BACKFILL,
}
"""Where a kill strikes, and the job that comes there."""
TOPIC = "stream-input"
TYPES = ("click", "purchase", "view")
FAULTS = ["redelivery", "malformed", "wrong_type", "missing_field", "late"]


# -- the process that is killed


class Failpoint:
    """Ends this process group at a random moment of its phase, at the latest when the phase ends."""

    def __init__(self, phase: str, fraction: float, durations: Path) -> None:
        self.phase, self.fraction, self.file = phase, fraction, durations
        self.durations: dict[str, float] = json.loads(durations.read_text()) if durations.exists() else {}

    def arm(self, seconds: float) -> None:
        """Kill after `seconds`."""
        threading.Timer(seconds, self.kill).start()

    def kill(self) -> None:
        """No handler, no flush: what a power cut leaves."""
        os.killpg(0, signal.SIGKILL)

    @contextlib.contextmanager
    def around(self, phase: str) -> Iterator[None]:
        """One passage of a phase."""
        began = time.monotonic()
        if phase == self.phase:
            # A third of the kills strike right behind the phase, where its work is done and nobody knows yet.
            self.arm(self.durations.get(phase, 0.5) * self.fraction * 1.5)
        yield
        if phase == self.phase:
            self.kill()
        self.durations[phase] = time.monotonic() - began
        self.file.write_text(json.dumps(self.durations))

    def wrap(self, owner: Any, name: str, phase: Callable[..., str | None]) -> None:
        """Let calls of `owner.name` be the phase that `phase` names for their arguments."""
        original = getattr(owner, name)

        def wrapped(*arguments: Any, **keywords: Any) -> Any:
            found = phase(*arguments, **keywords)
            with self.around(found) if found else contextlib.nullcontext():
                return original(*arguments, **keywords)

        setattr(owner, name, wrapped)


def work(home: Path, job: str, parameters: dict[str, str], failpoint: Failpoint) -> int:
    """Run one job, to be killed in it; returns 0 if it succeeded without coming to the phase."""
    import mlflow.sklearn  # by its full name: mlflow alone has a stand-in there, which the module itself takes the place of
    from rich.console import Console

    from laptop.run import run_on_laptop
    from streaming_pipeline.bronze import ingest as bronze
    from streaming_pipeline.core import tables
    from streaming_pipeline.monitoring import conservation
    from streaming_pipeline.silver import cleanse as silver
    from streaming_pipeline.silver import replay

    writes = {
        "bronze_events": "backfill" if job == BACKFILL else "bronze_write",
        "quarantined_events": "quarantine_write",
        "gold_anomaly_predictions": "gold_write",
        "duplicate_events": "duplicates_write",
        "silver_events": "replay_write" if job == REPLAY else "silver_write",
    }
    findings = ("profile_metrics", "drift_metrics", "anomaly_logs", "monitor_state", "baselines")
    writes |= dict.fromkeys(findings, "findings_write")
    failpoint.wrap(bronze, "run_available_now", lambda *_, **__: "bronze_stream")
    failpoint.wrap(silver, "extent", lambda *_: "silver_extent")
    failpoint.wrap(silver, "pin_contract", lambda *_: "contract_pin")
    failpoint.wrap(tables, "append", lambda settings, name, rows: writes[name])
    failpoint.wrap(tables, "append_rows", lambda spark, settings, to, rows: {"monitor_logs": to.name, **writes}.get(to.name, "task_logs"))
    failpoint.wrap(conservation, "check", lambda *_: "monitoring")
    failpoint.wrap(mlflow.sklearn, "log_model", lambda *_, **__: "model_log")
    failpoint.wrap(mlflow.MlflowClient, "set_registered_model_alias", lambda *_: "model_alias")
    failpoint.wrap(replay, "_resolve", lambda *_: "replay_resolve")
    commands = {"OPTIMIZE": "optimize", "VACUUM": "vacuum"}
    failpoint.wrap(SparkSession, "sql", lambda self, text, *_, **__: commands.get(text.split()[0]))
    if failpoint.phase == "any_moment":
        failpoint.arm(failpoint.fraction * 40)
    secrets = json.loads(os.environ["KILL_SECRETS"])
    run, spark = run_on_laptop(home, job=job, parameters=parameters, secrets=secrets, console=Console(file=io.StringIO()))
    for task in run.tasks:
        print(task.key, task.state, task.note, task.error)
    if failpoint.phase == "any_moment":
        failpoint.kill()
    spark.stop()
    return 0 if run.state == "SUCCESS" else 3


# -- the process that kills, and the oracle


class Stream:
    """Events that keep arriving in the background: valid ones over the last days, faults, and re-deliveries of older records."""

    def __init__(self, kafka: KafkaSettings, seed: int, per_second: int = 150) -> None:
        self.kafka, self.rng, self.per_second = kafka, random.Random(seed), per_second
        self.ended = threading.Event()
        self.error: Exception | None = None
        self.sent: list[synthetic.Record] = []
        self.thread = threading.Thread(target=self._run, daemon=True)

    def send(self, count: int) -> None:
        """Put about `count` records on the topic."""
        records = []
        for record in synthetic.generate(count, seed=self.rng.getrandbits(31), duration=timedelta(days=3), faults=FAULTS):
            value = record.value
            if value and self.rng.random() < 0.04:  # what the contract does not know at first
                value = value.replace(b'"click"', b'"refund"')
            records.append(synthetic.Record(record.key, value, record.timestamp_ms))
        again = self.rng.sample(self.sent, min(len(self.sent), count // 50))
        produce(self.kafka, [*records, *again])
        self.sent = self.rng.sample(self.sent + records, min(2_000, len(self.sent) + len(records)))

    def _run(self) -> None:
        try:
            while not self.ended.wait(2):
                self.send(2 * self.per_second)
        except Exception as error:  # told at the end
            self.error = error

    def __enter__(self) -> "Stream":
        self.send(3_000)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.thread.join()
        if self.error:
            raise self.error


def kill_once(home: Path, job: str, phase: str, fraction: float, parameters: dict[str, str], secrets: dict[str, str]) -> bool:
    """Start a job and let it be killed in a phase ("" for none); returns whether it came to it. Raises if the job failed by itself."""
    arguments = ["--work", str(home), job, phase, str(fraction), json.dumps(parameters)]
    log = home / "killed.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, __file__, *arguments],
            start_new_session=True,  # a process group of its own, to be killed as one
            stdout=output,
            stderr=output,
            cwd=ROOT,
            env={**os.environ, **QUICK_START, "KILL_SECRETS": json.dumps(secrets)},
        )
        try:
            code = process.wait(timeout=600)
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
    if code not in (0, -signal.SIGKILL):
        raise SystemExit(f"{job} failed after a kill (exit {code}): see the end of {log}, and {home / 'runs'}")
    return code != 0


def event_id(payload: bytes | None, types: tuple[str, ...]) -> str | None:
    """The id of a valid event; None for a record that is none. The contract's rules, in plain Python."""
    try:
        event = json.loads(payload or b"")
        at, value = datetime.fromisoformat(event["timestamp"]), event["value"]
        fine = at.tzinfo and 2000 <= at.year < 2100 and not isinstance(value, bool) and math.isfinite(float(value))
        return event["event_id"] if fine and event["event_type"] in types and 1 <= len(event["event_id"]) <= 256 else None
    except (ValueError, KeyError, TypeError):
        return None


def verdict(
    spark: SparkSession, settings: Settings, topic: dict[tuple[int, int], bytes | None], types: tuple[str, ...] = TYPES
) -> dict[str, int]:
    """What is wrong in the tables, by name; all zero if each record is in its one place."""

    def rows(name: str, *columns: str, where: str = "TRUE") -> list[tuple]:
        return [tuple(row) for row in spark.table(settings.table(name)).where(where).select("partition", "offset", *columns).collect()]

    bronze, silver, gold = rows("bronze_events", "raw_payload"), rows("silver_events", "event_id"), rows("gold_anomaly_predictions")
    duplicates, open_quarantine = rows("duplicate_events"), rows("quarantined_events", where="resolved_at IS NULL")
    placed = collections.Counter(row[:2] for row in (*silver, *duplicates, *open_quarantine))
    in_gold, in_bronze = collections.Counter(gold), collections.Counter(row[:2] for row in bronze)
    in_silver = {row[:2]: row[2] for row in silver}
    ids = {key: event_id(payload, types) for key, payload in topic.items()}
    valid_ids = {name for name in ids.values() if name is not None}
    looks = spark.table(settings.table("monitor_logs")).where("table_name = 'silver_events'").orderBy("run_time").collect()
    profiles = spark.table(settings.table("profile_metrics")).where("slice = '*' AND column_name = 'event_id'")
    profiled = sum(row["records"] for row in profiles.select("records").collect())
    wrong = {
        "lost": sum(key not in placed for key in topic),
        "twice": sum(count - 1 for count in placed.values()),
        "from nowhere": sum(key not in topic for key in placed),
        "bronze lacks": sum(key not in in_bronze for key in topic),
        "bronze twice": sum(count - 1 for count in in_bronze.values()),
        "bronze other bytes": sum(topic.get((p, o)) != (None if raw is None else bytes(raw)) for p, o, raw in bronze),
        "valid events not in silver": len(valid_ids - set(in_silver.values())),
        "events twice in silver": len(silver) - len(set(in_silver.values())),
        "silver has another id": sum(ids.get(key) != name for key, name in in_silver.items()),
        "rejected, yet valid": sum(ids[row[:2]] is not None for row in open_quarantine),
        "gold lacks": sum(key not in in_gold for key in in_silver),
        "gold twice": sum(count - 1 for count in in_gold.values()) + sum(key not in in_silver for key in in_gold),
        "monitoring counted otherwise": abs(sum(look["records"] for look in looks) - len(silver)),
        "profiled otherwise": abs(profiled - len(silver)),
        "unaccounted at the last look": looks[-1]["unaccounted_records"],
        "lost at the last look": looks[-1]["lost_records"],
    }
    print(
        f"{len(topic):,} records: {len(silver):,} events, {len(duplicates):,} duplicates, {len(open_quarantine):,} rejected; "
        f"{len(looks)} looks, {sum(bool(look['unaccounted_records']) for look in looks)} of which saw an unfinished replay"
    )
    return wrong


def schedule(kills: int, rng: random.Random) -> list[str]:
    """The phases to be killed in: each as often as the others, in random order; the data path's first where there are few."""
    phases = list(PHASES)
    rounds = [phase for _ in range(kills // len(phases)) for phase in rng.sample(phases, len(phases))]
    return rounds + phases[: kills - len(rounds)]


def run(home: Path, broker: Broker, kills: int, seed: int) -> tuple[dict[str, int], dict[str, int], int]:
    """Kill `kills` times; returns kills by phase, what is wrong, and the number of records."""
    rng = random.Random(seed)
    broker.create_topic(TOPIC)
    secrets, kafka = broker.secrets("SSL", TOPIC), broker.kafka_settings("SSL", TOPIC)
    contract = (ROOT / "config" / "event_contract.yml").read_text(encoding="utf-8")
    put_right = home / "put_right"  # not `config`, which every run of this home would go by
    put_right.mkdir(parents=True)
    (put_right / "event_contract.yml").write_text(contract.replace("[click, purchase, view]", "[click, purchase, view, refund]"))
    parameters: dict[str, dict[str, str]] = collections.defaultdict(dict)
    parameters[REPLAY] = {"config_dir": str(put_right)}
    parameters[BACKFILL] = {"from_time": "2020-01-01T00:00:00Z"}
    done: dict[str, int] = dict.fromkeys(PHASES, 0)
    with Stream(kafka, seed) as stream:
        kill_once(home, MAIN, "", 0, {}, secrets)  # a first whole run: tables and a champion
        for number, phase in enumerate(schedule(kills, rng), start=1):
            for _ in range(3):
                killed = kill_once(home, PHASES[phase], phase, rng.random(), parameters[PHASES[phase]], secrets)
                if killed:
                    break
                stream.send(300)
            done[phase] += killed
            print(f"{number:4} {phase}: {'killed' if killed else 'never came there'}", flush=True)
    for job in (MAIN, REPLAY, MAIN):
        kill_once(home, job, "", 0, parameters[job], secrets)
    topic = topic_records(kafka)
    spark = start_session(home)
    wrong = verdict(spark, Settings(catalog="spark_catalog"), topic, (*TYPES, "refund"))
    spark.stop()
    return done, wrong, len(topic)


def main() -> None:
    """Kill, judge, and write the section of RESULTS.md; exit code 1 if anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--home", type=Path, help="an empty folder, and no section of RESULTS.md")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("Stopped."))  # so that nothing is left running
    home = options.home.resolve() if options.home else fresh_home("kill")
    began = time.monotonic()
    with running_broker(home) as broker:
        done, wrong, records = run(home, broker, options.kills, options.seed)
    faults = {name: count for name, count in wrong.items() if count}
    unkilled = [phase for phase, count in done.items() if not count] if options.kills >= len(PHASES) else []
    print(json.dumps({"kills": sum(done.values()), "faults": faults, "phases_without_a_kill": unkilled}))
    if not options.home:
        write_section(
            "Kills",
            f"{sum(done.values())} kills by SIGKILL (seed {options.seed}) while events kept arriving, {records:,} records in all, "
            f"{(time.monotonic() - began) / 60:.0f} minutes.\n\n"
            + table(["phase", "kills"], list(done.items()))
            + "\n\nAgainst the topic itself:\n\n"
            + table(["", "records"], list(wrong.items())),
        )
    if faults or unkilled:
        raise SystemExit(f"Not as promised: {faults or unkilled}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        _, _, work_home, work_job, work_phase, work_fraction, work_parameters = sys.argv
        point = Failpoint(work_phase, float(work_fraction), Path(work_home, "durations.json"))
        sys.exit(work(Path(work_home), work_job, json.loads(work_parameters), point))
    main()
