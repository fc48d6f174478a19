"""The laptop's Spark session: Delta, the Kafka source, and the tables of one home folder."""

import atexit
import locale
import logging
import os
import re
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession
from pyspark.sql.utils import is_remote

from laptop.interrupts import interrupt_afterwards, silence_py4j
from laptop.services.jars import spark_jars
from laptop.services.java import java_home
from streaming_pipeline.core.errors import PipelineError, damaged, damaged_table

_LOG4J = """\
rootLogger.level = warn
rootLogger.appenderRef.file.ref = file
appender.file.type = File
appender.file.name = file
appender.file.fileName = {log}
appender.file.layout.type = PatternLayout
appender.file.layout.alwaysWriteExceptions = false
appender.file.layout.pattern = %replace{{%d{{ISO8601}} %p %c{{1}}: %m%n%ex}}{{[\\\\x00-\\\\x08\\\\x0b-\\\\x1f\\\\x7f-\\\\x9f]}}{{?}}
"""

_DELTA_SAYS = re.compile(r"\[DELTA_\w+\] (.+)")


def start_session(
    home: Path, *, connect: bool = False, event_log: Path | None = None, memory: str = "2g", confs: Mapping[str, str] | None = None
) -> SparkSession:
    """One Spark for this process, on all cores, whose tables live under `home/warehouse`.

    `connect` starts a local Spark Connect server and returns its client: the rules of serverless. `event_log` is a folder for
    Spark's own event log; `confs` are added to what a laptop sets. Raises `PipelineError` if Java or jars cannot be had.
    """
    home = home.resolve()
    os.environ["JAVA_HOME"] = str(java_home())
    # Workers must be this very Python: another on the PATH may lack the packages.
    os.environ["PYSPARK_PYTHON"] = os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable
    _let_java_read_any_path()
    # As on a cluster: times that Python is handed are UTC.
    os.environ["TZ"] = "UTC"
    if hasattr(time, "tzset"):
        time.tzset()
    log = home / "logs" / "spark.log"
    log4j = home / "logs" / "log4j2.properties"
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        log4j.write_text(_LOG4J.format(log=_escaped(str(log))), encoding="ascii")
    except OSError as error:
        raise PipelineError(f"{log.parent} cannot be written ({error.strerror}): is this another user's home? Name one of yours.") from None
    cores = os.cpu_count() or 1
    ours = {
        "spark.jars": ",".join(str(jar) for jar in spark_jars()),
        "spark.driver.memory": memory,
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        # Throughput counts here, not pauses: Java's own choice of collector takes a seventh more time.
        "spark.driver.extraJavaOptions": f"-Dlog4j2.configurationFile={log4j.as_uri()} -XX:+UseParallelGC",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        "spark.sql.catalogImplementation": "in-memory",
        "spark.sql.warehouse.dir": str(home / "warehouse"),
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": str(cores),
        # Java compiles no larger method, and would interpret the rules of a contract of six fields row by row.
        "spark.sql.codegen.hugeMethodLimit": "8000",
        # One run of the job generates more classes than the 100 that Spark remembers, and would compile them all again in the next.
        "spark.sql.codegen.cache.maxEntries": "1000",
        # Sketches of distinct values: behind 128 windows and slices Spark would sort all rows instead of keeping a sketch for each.
        "spark.sql.objectHashAggregate.sortBased.fallbackThreshold": "10000",
        # With Delta's extension, `spark.sql(text, args)` leaves its parameters unbound otherwise (Spark 4.1).
        "spark.sql.legacy.parameterSubstitution.constantsOnly": "true",
        # A query that holds ${env:…} would be answered with the environment, of which secrets may be a part.
        "spark.sql.variable.substitute": "false",
        "spark.databricks.delta.snapshotPartitions": "2",
        # The usual ways to rename a local file start `readlink`, a process of its own, up to eight times: each commit of a table would
        # take twice as long. One run at a time works on a home, which is all that these ask for.
        "spark.delta.logStore.file.impl": "io.delta.storage.LocalLogStore",
        "spark.sql.streaming.checkpointFileManagerClass": (
            "org.apache.spark.sql.execution.streaming.checkpointing.FileSystemBasedCheckpointFileManager"
        ),
        # VACUUM lists folders with this many tasks; Spark's 10,000 take a minute for a table of three files.
        "spark.sql.sources.parallelPartitionDiscovery.parallelism": str(cores),
        # Spark's own pattern misses the PEM key and the login of the Kafka source.
        "spark.redaction.regex": r"(?i)secret|password|token|access[.]?key|ssl\.keystore|jaas|credential",
        "spark.redaction.string.regex": r"(?s)-----BEGIN .*?-----END [A-Z ]+-----|password=\S+",
    }
    if event_log:
        event_log.mkdir(parents=True, exist_ok=True)
        ours |= {"spark.eventLog.enabled": "true", "spark.eventLog.dir": event_log.as_uri(), "spark.eventLog.rolling.enabled": "false"}
    if connect:
        from pyspark.sql.connect.client.core import DefaultChannelBuilder

        # PySpark's client of its own local server knows Spark's default port alone, which another run may have.
        port = _free_port()
        ours["spark.connect.grpc.binding.port"] = str(port)
        ours["spark.connect.grpc.binding.address"] = "127.0.0.1"  # by itself it would listen to every network of this machine
        DefaultChannelBuilder.default_port = staticmethod(lambda: port)
        builder = SparkSession.builder.remote(f"local[{cores}]")
    else:
        builder = SparkSession.builder.master(f"local[{cores}]").appName("streaming-pipeline")
    for key, value in {**ours, **(confs or {})}.items():
        builder = builder.config(key, value)
    logs = (log.with_name("spark.stderr"), log)
    before = [_size(file) for file in logs]
    try:
        with interrupt_afterwards(), _stderr_to(logs[0]):
            spark = builder.getOrCreate()
    except Exception as error:
        grown = [str(file) for file, size in zip(logs, before, strict=True) if _size(file) > size]
        see = f" The reason is in {' or '.join(grown)}." if grown else ""
        raise PipelineError(f"Spark could not start: {_first_line(error)}{see}") from error
    silence_py4j()
    # PySpark logs at length, Java's stack included, each query that Spark refuses; whoever asked is told by the exception.
    logging.getLogger("SQLQueryContextLogger").setLevel(logging.CRITICAL)
    register_tables(spark, home)
    return spark


def register_tables(spark: SparkSession, home: Path) -> None:
    """Name every Delta folder of the home's warehouse in the session's catalog, which keeps nothing between processes."""
    known: dict[str, set[str]] = {}
    for log in sorted((home.resolve() / "warehouse").glob("*.db/*/_delta_log")):
        schema, table = log.parent.parent.name.removesuffix(".db"), log.parent.name
        if schema not in known:
            spark.sql(f"CREATE SCHEMA IF NOT EXISTS `{schema}`")
            known[schema] = {row["tableName"] for row in spark.sql(f"SHOW TABLES IN `{schema}`").collect()}
        if table in known[schema] or not any(log.glob("*.json")):
            continue  # the second is a table whose first commit never came
        try:
            spark.sql(f"CREATE TABLE IF NOT EXISTS `{schema}`.`{table}` USING DELTA LOCATION '{_sql_path(log.parent)}'")
        except (PySparkException, Py4JJavaError) as error:
            said = _DELTA_SAYS.search(str(error))
            reason = said[1].strip() if said else _first_line(error)
            raise damaged_table(error) or damaged(f"{schema}.{table}", f"{log} cannot be read ({reason.rstrip('.')})") from error


def new_session(spark: SparkSession) -> SparkSession:
    """A session of its own (confs, temporary views) on the same Spark, as each task of a job has in a workspace."""
    if not is_remote():
        return spark.newSession()
    from pyspark.sql.connect.session import SparkSession as ConnectSession

    session = ConnectSession.builder.remote("sc://localhost").create()
    # At exit each client would ask the server, which is gone by then, for minutes to forget models that nobody made.
    atexit.unregister(session.client._cleanup_ml_cache)
    return session


def _let_java_read_any_path() -> None:
    """Give Java a UTF-8 locale if this process has the C locale, which it also gets if the locale asked for is not installed.

    With the C locale Java cannot open a folder whose path has letters beyond ASCII.
    """
    if sys.platform == "linux" and locale.setlocale(locale.LC_CTYPE) in ("C", "POSIX"):
        os.environ["LC_ALL"] = "C.UTF-8"


@contextmanager
def _stderr_to(file: Path) -> Iterator[None]:
    """Let a process that is started within the block, the JVM, write its standard error to `file` for all its life."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with file.open("ab") as log:
            os.dup2(log.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _first_line(error: Exception) -> str:
    """What an error says, as a sentence; without words its kind."""
    line = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
    return line if line.endswith(".") else f"{line}."


def _escaped(text: str) -> str:
    """A value of a Java properties file, which is read as Latin-1."""
    units = text.encode("utf-16-be")
    codes = (int.from_bytes(units[at : at + 2], "big") for at in range(0, len(units), 2))
    return "".join(chr(code) if 32 <= code < 127 and code != 92 else f"\\u{code:04x}" for code in codes)


def _sql_path(path: Path) -> str:
    return re.sub(r"(['\\])", r"\\\1", str(path))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
