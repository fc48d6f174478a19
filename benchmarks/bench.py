"""What the benchmarks share: a home of their own, the topic as another client sees it, and RESULTS.md, in which each owns a section."""

import os
import platform
import re
import shutil
import sys
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from confluent_kafka import Consumer, KafkaError, TopicPartition

from streaming_pipeline.core.settings import KafkaSettings, Settings
from streaming_pipeline.kafka.connection import client_config, topic_offsets

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "RESULTS.md"
Result = TypeVar("Result")
QUICK_START = {"JDK_JAVA_OPTIONS": "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=240m"}
"""For a process of minutes, Java's first compiler alone: a cold job takes a fifth less time. By itself it would take a code cache
of 48 MB with it, which Spark fills, and everything else would be interpreted."""
TINY_TABLES = {
    # A query is planned, compiled and run for a handful of rows: each plan that is left as it is takes a quarter less time.
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    "spark.sql.adaptive.enabled": "false",
    "spark.sql.shuffle.partitions": "1",
    "spark.databricks.delta.snapshotPartitions": "1",
}
"""A session for tables of a few rows, where what is asked is whether they are right and not how long it takes."""
_TITLE = "# Results\n\nEach section is written by the program that it names, and by nothing else.\n"


def fresh_home(name: str) -> Path:
    """An empty home folder for one benchmark, under the project's ignored local folder."""
    home = ROOT / ".local" / "benchmarks" / name
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    return home


def own_settings(home: Path, schema: str, **others: Any) -> Settings:
    """Settings for a schema of its own whose checkpoints and runs lie in a home folder; `others` are fields of `Settings`."""
    folders = {"checkpoint_dir": str(home / "checkpoints"), "runs_dir": str(home / "runs"), "config_dir": str(ROOT / "config")}
    return Settings(**{"catalog": "spark_catalog", "schema": schema, **folders, **others})


def machine() -> str:
    """The machine in a few words."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()} {platform.machine()}, Python {platform.python_version()}"


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def write_section(title: str, body: str) -> None:
    """Put a section into RESULTS.md in place of the one of the same title, and print it."""
    command = f"uv run python {Path(sys.argv[0]).resolve().relative_to(ROOT)} {' '.join(sys.argv[1:])}".strip()
    how = f"`{command}` · {datetime.now(UTC):%Y-%m-%d} · {machine()}"
    section = f"## {title}\n\n{how}\n\n{body.strip()}\n"
    text = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else _TITLE
    mine = re.compile(rf"^## {re.escape(title)}\n.*?(?=^## |\Z)", re.DOTALL | re.MULTILINE)
    text = mine.sub(lambda _: f"{section}\n", text) if mine.search(text) else f"{text.rstrip()}\n\n{section}"
    RESULTS.write_text(text.rstrip() + "\n", encoding="utf-8")
    print(section)


def topic_records(connection: KafkaSettings) -> dict[tuple[int, int], bytes | None]:
    """Each record that the topic holds, as a client reads it that is not Spark: (partition, offset) → payload."""
    offsets = topic_offsets(connection)
    consumer = Consumer(
        client_config(connection) | {"group.id": "check", "enable.partition.eof": True, "isolation.level": "read_committed"}
    )
    consumer.assign([TopicPartition(connection.topic, partition, offset) for partition, offset in offsets.beginnings.items()])
    left, found = set(offsets.info.partitions), {}
    while left:
        message = consumer.poll(60)
        if message is None or (message.error() and message.error().code() != KafkaError._PARTITION_EOF):
            raise SystemExit(f"The topic cannot be read to its end: {message and message.error()}")
        if message.error():
            left.discard(message.partition())
        else:
            found[message.partition(), message.offset()] = message.value()
    consumer.close()
    return found


def seconds(work: Callable[[], Result]) -> tuple[float, Result]:
    """How long `work` takes, and what it returns."""
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result


class PeakMemory:
    """The most memory (proportional set size, bytes) that this process and its children held at once within the `with` block.

    `leave_out` says which processes (by pid) do not count, such as the broker. `/proc` is read four times a second.
    """

    def __init__(self, leave_out: Callable[[], set[int]] = set) -> None:
        self.bytes = 0
        self.by_kind: dict[str, int] = {}
        self._leave_out = leave_out
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "PeakMemory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(0.25):
            held = memory_by_kind(with_descendants(os.getpid()) - self._leave_out())
            if sum(held.values()) > self.bytes:
                self.bytes, self.by_kind = sum(held.values()), held


def memory_by_kind(pids: set[int]) -> dict[str, int]:
    """What these processes hold (proportional set size, bytes), by the program's name."""
    held: dict[str, int] = {}
    for pid in pids:
        try:
            if _shares_memory(pid):
                continue
            kind = Path(f"/proc/{pid}/comm").read_text().strip()
            pss = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
        except OSError:
            continue  # it has just ended
        held[kind] = held.get(kind, 0) + (int(pss[1]) * 1024 if pss else 0)
    return held


def _shares_memory(pid: int) -> bool:
    """Whether this is a JVM's child that has not become another program yet: until then it has its parent's memory, not a copy."""
    parent = re.search(r"^PPid:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)[1]
    program, parents = (os.readlink(f"/proc/{one}/exe") for one in (pid, parent))
    return program == parents and Path(program).name == "java"


def with_descendants(pid: int) -> set[int]:
    """A process, its children, theirs, and so on, by their ids."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                # The command's name stands in parentheses and may hold spaces.
                parents[int(entry.name)] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue
    found, added = {pid}, {pid}
    while added:
        added = {child for child, parent in parents.items() if parent in added} - found
        found |= added
    return found
