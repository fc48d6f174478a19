"""A query over the local tables, for people and pipes."""

import csv
import io
import json
import re
from datetime import datetime
from math import isfinite
from pathlib import Path
from typing import Any

import sqlparse
from py4j.protocol import Py4JError, Py4JJavaError
from pyspark.errors import PySparkException, PySparkNotImplementedError
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import BinaryType, BooleanType, NumericType
from rich.console import Console
from rich.table import Table
from rich.text import Text

from laptop.interrupts import end_work, interrupt_behind
from laptop.not_yet import why_missing
from laptop.services.spark import new_session, start_session
from streaming_pipeline.core.errors import UsageError, damaged_table
from streaming_pipeline.core.foreign_text import harmless
from streaming_pipeline.core.settings import Settings
from streaming_pipeline.core.wording import plural

_QUERY = re.compile(r"[\s(]*(SELECT|WITH|FROM|VALUES|TABLE|SHOW|DESCRIBE|DESC)\b", re.IGNORECASE)

_PIPE_WIDTH, _LEAST_CELL = 160, 16
_MOST_SHOWN = 1_000
"""Rows of a table that a person may still read; to lay out many more would take minutes."""


def run_query(home: Path, text: str, schema: str = "streaming") -> tuple[list[str], list[tuple]]:
    """Column names and rows of a SELECT over the tables of `home`, by bare name or schema.table; a job may run meanwhile.

    Raises `UsageError` for a schema that is no name, a home without tables, a text that is no query, and a query that Spark refuses
    or cannot answer, in Spark's words. An interrupt ends the query.
    """
    Settings(catalog="spark_catalog", schema=schema)  # says what is wrong with the name
    check_has_tables(home)
    spark = new_session(start_session(home))
    _confine_to_tables(spark)
    try:
        if spark.catalog.databaseExists(schema):
            spark.sql(f"USE `{schema}`")
        if not _is_query(spark, text):
            raise UsageError(
                "Only queries (SELECT, WITH, SHOW, DESCRIBE) over the tables are answered here: the tables belong to the job, "
                "and files and programs are not reached from here."
            )
        frame = spark.sql(text)
        return frame.columns, collected(frame)
    except (KeyboardInterrupt, PySparkException, Py4JError, ConnectionError) as error:
        if interrupt := interrupt_behind(error):
            end_work(spark, interrupt)
            raise interrupt from None
        if damage := damaged_table(error):
            raise damage from None
        if not isinstance(error, PySparkException):
            raise UsageError(f"Spark cannot answer the query: {_fault(error)}") from None
        absent = (error.getMessageParameters() or {}).get("relationName", "").rpartition(".")[2].strip("`")
        if error.getCondition() == "TABLE_OR_VIEW_NOT_FOUND" and (why := why_missing(absent)):
            raise UsageError(why) from None
        # What follows the first line is hints at Spark's settings, the plan and the stack.
        raise UsageError(f"Spark refuses the query: {str(error).strip().splitlines()[0].rstrip(';')}") from None


def _fault(error: Exception) -> str:
    """What ended Spark's work on a query."""
    try:
        said = str(error)  # for which Java is asked
    except (Py4JError, ConnectionError):
        said = ""
    if "StackOverflowError" in said:
        return "it is nested too deep."
    if "OutOfMemoryError" in said or not isinstance(error, Py4JJavaError):  # that Java is gone has this reason
        return "it takes more memory than there is. Ask for fewer rows or smaller values."
    return next((line.removeprefix(": ") for line in said.splitlines() if line.startswith(": ")), said.partition("\n")[0])


def check_has_tables(home: Path, schema: str = "*") -> None:
    """Raise `UsageError` for a home without tables, or without those of this schema, and for a schema that is no name."""
    if schema != "*":
        Settings(catalog="spark_catalog", schema=schema)
    if not any((home / "warehouse").glob(f"{schema}.db/*/_delta_log")):
        named = "" if schema == "*" else f" in schema {schema}"
        do = "run `streaming-pipeline demo` or `streaming-pipeline run` first, or name another --home"
        if any((home / "demo" / "warehouse").glob(f"{schema}.db/*/_delta_log")):
            do = f"those of the demo are in --home {home / 'demo'}"
        raise UsageError(f"{home.resolve()} has no tables{named} yet: {do}.")


def _confine_to_tables(spark: SparkSession) -> None:
    """Let the session read the tables of its catalog alone: no files by their path, no functions that call Java."""
    spark.conf.set("spark.sql.runSQLOnFiles", "false")
    state, name = spark._jsparkSession.sessionState(), spark._jvm.org.apache.spark.sql.catalyst.FunctionIdentifier
    for function in ("java_method", "reflect", "try_reflect"):
        state.functionRegistry().dropFunction(name(function))
    state.tableFunctionRegistry().dropFunction(name("table_changes_by_path"))


def collected(frame: DataFrame) -> list[tuple]:
    """The rows as Python has them; where it lacks a value, such as a time after the year 9999, all but numbers as Spark writes them."""
    try:
        return [tuple(row) for row in frame.collect()]
    # TypeError for a map whose keys are lists; the last for an interval, which Python has no type for.
    except (ValueError, OverflowError, TypeError, PySparkNotImplementedError):
        unique = frame.toDF(*[f"_{index}" for index in range(len(frame.columns))])
        kept = (NumericType, BooleanType, BinaryType)
        texts = [F.col(field.name) if isinstance(field.dataType, kept) else F.col(field.name).cast("string") for field in unique.schema]
        return [tuple(row) for row in unique.select(*texts).collect()]


def _is_query(spark: SparkSession, text: str) -> bool:
    """Whether the text only reads tables: it begins as a query does, and no part of its plan, subqueries included, is a command
    (SHOW and DESCRIBE apart), writes, names a folder (DESCRIBE DETAIL '/…') or runs a program (TRANSFORM … USING).
    """
    command = spark._jvm.java.lang.Class.forName("org.apache.spark.sql.catalyst.plans.logical.Command")
    parts = [spark._jsparkSession.sessionState().sqlParser().parsePlan(text)]
    if not _QUERY.match(sqlparse.format(text, strip_comments=True)):
        return False  # such as RESTORE or EXECUTE IMMEDIATE, whose plans are no commands
    while parts:
        plan = parts.pop()
        name = plan.getClass().getSimpleName()
        if name.startswith("Insert") or "PathBased" in name or name == "ScriptTransformation":
            return False
        if command.isInstance(plan) and not name.startswith(("Show", "Describe")):
            return False
        for below in (plan.children(), plan.innerChildren(), plan.subqueries()):
            parts += [below.apply(index) for index in range(below.size())]
    return True


def render(columns: list[str], rows: list[tuple], form: str, console: Console) -> None:
    """Print a result as a table for people, or as CSV or JSON, which have each value as it is; JSON is one list, an object a line."""
    if form == "json":
        if twice := [name for name in columns if columns.count(name) > 1]:
            raise UsageError(f"Two columns are named {twice[0]!r}, and JSON keeps one of a name: rename one with AS, or take --format csv.")
        objects = [json.dumps(dict(zip(columns, map(_plain, row), strict=True)), ensure_ascii=False) for row in rows]
        console.file.write("[" + ",\n ".join(objects) + "]\n")
    elif form == "csv":
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([["" if value is None else _cell(value) for value in row] for row in rows])
        console.file.write(out.getvalue())
    else:
        _show(columns, rows[:_MOST_SHOWN], console)
        rest = f", the first {_MOST_SHOWN:,} shown: --format csv gives all" if len(rows) > _MOST_SHOWN else ""
        console.print(f"{plural(len(rows), 'row')}{rest}", highlight=False)


def _show(columns: list[str], rows: list[tuple], console: Console) -> None:
    """A table; where a terminal is too narrow for it, one record below the other."""
    table = Table(header_style="bold")
    for index, name in enumerate(columns):
        numeric = all(isinstance(row[index], int | float) or row[index] is None for row in rows)
        table.add_column(Text(harmless(name)), justify="right" if numeric and rows else "left", overflow="fold")
    # As Text, since a value may hold what looks like a style.
    texts = [[Text("" if value is None else harmless(_text(value))) for value in row] for row in rows]
    for row in texts:
        table.add_row(*row)
    width = console.measure(table, options=console.options.update(max_width=100_000)).maximum
    if width <= console.width or not console.is_terminal:
        # A pipe has no width of its own: cells are folded where they would make lines that nobody can read.
        folded = min(width, max(console.width, _PIPE_WIDTH, _LEAST_CELL * len(columns)))
        (console if console.is_terminal else Console(file=console.file, width=folded)).print(table)
        return
    for number, row in enumerate(texts, start=1):
        record = Table(box=None, show_header=False, pad_edge=False, title=f"row {number}", title_justify="left")
        record.add_column(style="bold")
        record.add_column(overflow="fold")
        for name, text in zip(columns, row, strict=True):
            record.add_row(Text(harmless(name)), text)
        console.print(record)


def _cell(value: Any) -> Any:
    """A value as CSV has it: nested ones as JSON."""
    return _text(value) if isinstance(value, dict | list | tuple) else _plain(value)


def _plain(value: Any) -> Any:
    """A value as JSON has it."""
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, float) and not isfinite(value):
        return _text(value)  # JSON has no such numbers
    return value if value is None or isinstance(value, bool | int | float | str) else _text(value)


def _text(value: Any) -> str:
    """A value as a person reads it; times are UTC."""
    if isinstance(value, float):
        return f"{value:.6g}" if value == value and abs(value) < 1e6 else f"{value:.3f}"
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="milliseconds")
    if isinstance(value, bytes | bytearray):
        return bytes(value).decode("utf-8", errors="replace")
    if isinstance(value, dict | list | tuple):
        return json.dumps(_plain(value), ensure_ascii=False)
    return str(value)
