"""`sql`: what is a query, and how a result is shown."""

import csv
import io
import json
import logging
import os
import signal
import threading
from datetime import date, datetime

import pytest
from py4j.protocol import Py4JError
from pyspark.sql.classic.dataframe import DataFrame
from rich.console import Console

from laptop.sql import _is_query, render, run_query
from streaming_pipeline.core.errors import UsageError

COLUMNS = ["id", "score", "at", "payload", "reasons", "text"]
ROWS = [
    (1, 123456.789, datetime(2026, 3, 1, 12, 0), bytearray(b'{"a": 1}'), ["missing:value"], "[/b] [click] x"),
    (2, None, None, None, None, "é,\n"),
]


def shown(form):
    console = Console(file=io.StringIO(), width=160)
    render(COLUMNS, ROWS, form, console)
    return console.file.getvalue()


def test_values_are_shown_as_they_are():
    table = shown("table")
    assert "[/b] [click] x" in table and '{"a": 1}' in table and "2026-03-01 12:00:00.000" in table and "2 rows" in table
    assert "123456.789" in shown("csv") and "123456.789" in shown("json")
    assert shown("csv").splitlines()[0] == "id,score,at,payload,reasons,text"


def test_what_is_too_wide_for_a_terminal_is_shown_record_by_record():
    columns, rows = [f"column_{n}" for n in range(20)], [tuple(range(20)), tuple(f"{'x' * 30}{n}" for n in range(20))]

    def lines(**terminal):
        console = Console(file=io.StringIO(), width=80, **terminal)
        render(columns, rows, "table", console)
        return console.file.getvalue().splitlines()

    records = lines(force_terminal=True, no_color=True)
    assert sum("column_7 " in line for line in records) == 2
    assert any("column_7" in line and f"{'x' * 30}7" in line for line in records)
    # In a pipe it stays a table: long cells are folded.
    piped = lines(force_terminal=False)
    assert sum(all(f"column_{n} " in line for n in range(20)) for line in piped) == 1
    assert max(map(len, piped)) <= 320 < len(columns) * 31


def test_csv_and_json_have_a_line_for_each_row():
    assert shown("json").startswith('[{"id": 1, ') and shown("json").count("\n") == 2 and len(json.loads(shown("json"))) == 2
    console = Console(file=io.StringIO())
    render(["a"], [], "json", console)
    assert console.file.getvalue() == "[]\n"


@pytest.mark.parametrize(
    ("text", "reads"),
    [
        ("SELECT 1", True),
        ("WITH a AS (SELECT 1 AS x) SELECT * FROM a", True),
        ("SHOW TABLES", True),
        ("DESCRIBE HISTORY t", True),
        ("INSERT INTO t SELECT 1", False),
        ("WITH a AS (SELECT 1) INSERT INTO t SELECT * FROM a", False),
        ("-- a note\n(SELECT 1)", True),
        ("RESTORE TABLE t TO VERSION AS OF 0", False),
        ("/* a note */ EXECUTE IMMEDIATE 'DELETE FROM t'", False),
        ("DROP TABLE t", False),
        ("DELETE FROM t", False),
        ("MERGE INTO t USING u ON t.a = u.a WHEN MATCHED THEN DELETE", False),
        ("OPTIMIZE t", False),
        ("VACUUM t", False),
        ("SET spark.sql.ansi.enabled = false", False),
        ("SELECT TRANSFORM(1) USING 'cat /etc/passwd' AS (x)", False),
        ("WITH a AS (SELECT TRANSFORM(1) USING 'cat' AS (x)) SELECT * FROM a", False),
        ("SELECT (SELECT max(x) FROM (SELECT TRANSFORM(1) USING 'cat' AS (x)))", False),
        ("DESCRIBE DETAIL '/etc'", False),
        ("DESCRIBE HISTORY '/etc'", False),
    ],
)
def test_only_what_reads_is_a_query(spark, text, reads):
    assert _is_query(spark, text) == reads


@pytest.fixture
def ask(spark, home):
    """A home with one table, and what a query there is answered with."""
    spark.sql("CREATE SCHEMA IF NOT EXISTS asked")
    spark.sql("CREATE TABLE IF NOT EXISTS asked.t (a INT) USING DELTA TBLPROPERTIES (delta.enableChangeDataFeed = true)")
    return lambda text: run_query(home, text, "asked")


def test_tables_are_asked_by_bare_and_by_full_name(ask):
    assert ask("SELECT count(*) AS n FROM t") == (["n"], [(0,)])
    assert ask("SELECT a FROM spark_catalog.asked.t VERSION AS OF 0") == (["a"], [])
    assert ask("SELECT * FROM table_changes('t', 0)")[1] == []
    assert ask("SELECT id + 1 AS n FROM range(2) ORDER BY n") == (["n"], [(1,), (2,)])


@pytest.mark.parametrize(
    "text",
    [
        "SELECT * FROM text.`{file}`",
        "SELECT (SELECT max(value) FROM text.`{file}`)",
        "SELECT * FROM IDENTIFIER('text.`{file}`')",
        "SELECT * FROM binaryFile.`{file}`",
        "SELECT * FROM delta.`{table}`",
        "SELECT * FROM table_changes_by_path('{table}', 0)",
        "SELECT * FROM table_changes('delta.`{table}`', 0)",
        "DESCRIBE DETAIL '{table}'",
        "DESCRIBE HISTORY delta.`{table}`",
        "SELECT java_method('java.lang.System', 'getenv', 'HOME')",
        "SELECT reflect('java.lang.System', 'getenv', 'HOME')",
        "SELECT try_reflect('java.lang.System', 'getenv', 'HOME')",
        "SELECT IDENTIFIER('reflect')('java.lang.System', 'getenv', 'HOME')",
        "SELECT TRANSFORM(1) USING 'cat {file}' AS (x)",
    ],
)
def test_files_programs_and_java_are_not_reached(ask, home, tmp_path, text):
    (tmp_path / "file").write_text("secret\n")
    table = home / "warehouse" / "asked.db" / "t"
    with pytest.raises(UsageError) as refused:
        ask(text.format(file=tmp_path / "file", table=table))
    assert str(refused.value).count("\n") == 0 and "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("timestamp'9999-12-31' + interval 10 years", "+10009-12-31 00:00:00"),
        ("date'0001-01-01' - 1", "0000-12-31"),
        ("array(timestamp'9999-12-31' + interval 10 years)", "[+10009-12-31 00:00:00]"),
        ("interval 3 years", "INTERVAL '3' YEAR"),
        ("map(array(1), 2)", "{[1] -> 2}"),
    ],
)
def test_a_value_that_python_lacks_is_shown_as_text(ask, value, text):
    assert ask(f"SELECT {value} AS x, 1 AS x, timestamp'2026-03-01' AS y") == (["x", "x", "y"], [(text, 1, "2026-03-01 00:00:00")])


def test_a_query_that_is_interrupted_ends_without_a_traceback_of_the_gateway(ask, spark, caplog, capfd):
    press = threading.Timer(1, os.kill, (os.getpid(), signal.SIGINT))
    press.start()
    with pytest.raises(KeyboardInterrupt):
        ask("SELECT count(*) FROM range(1000000) a CROSS JOIN range(1000000) b WHERE a.id + b.id = 0")
    assert caplog.records == [] and "Traceback" not in capfd.readouterr().err
    assert list(spark.sparkContext.statusTracker().getActiveJobsIds()) == []


def test_what_fails_while_an_interrupt_is_on_its_way_is_still_the_interrupt(ask, caplog, monkeypatch):
    whole = DataFrame.collect

    def collect(frame):
        if frame.columns != ["asked"]:
            return whole(frame)
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            logging.exception("The gateway is told of it.")
            raise Py4JError("Answer from Java side is empty") from None

    monkeypatch.setattr(DataFrame, "collect", collect)
    with pytest.raises(KeyboardInterrupt):
        ask("SELECT 1 AS asked")
    assert caplog.records == []


@pytest.mark.parametrize(("text", "schema"), [("SELECT * FROM nowhere", "asked"), ("SELECT", "asked")])
def test_what_spark_refuses_is_told_in_one_line(ask, home, text, schema):
    with pytest.raises(UsageError, match=r"Spark refuses the query: .+") as refused:
        run_query(home, text, schema)
    assert str(refused.value).count("\n") == 0


@pytest.mark.parametrize("text", ["SELECT sequence(1, 2000000000)", f"SELECT {'(' * 5_000}1{')' * 5_000}"])
def test_what_spark_cannot_answer_is_told_in_a_sentence(ask, text):
    with pytest.raises(UsageError, match=r"Spark cannot answer the query: it .+\.") as refused:
        ask(text)
    assert str(refused.value).count("\n") == 0


def test_no_variable_is_put_into_a_query(ask, monkeypatch):
    kept = ["${env:HOME}", "${system:user.home}", "${spark:spark.app.id}", "${spark.app.id}", "${hivevar:x}"]
    assert ask("SELECT " + ", ".join(f"'{text}'" for text in kept))[1] == [tuple(kept)]


def test_json_with_two_columns_of_one_name_is_refused():
    with pytest.raises(UsageError, match="Two columns are named 'a'"):
        render(["a", "b", "a"], [(1, 2, 3)], "json", Console(file=io.StringIO()))


def test_a_table_ends_where_nobody_reads_on_and_says_so():
    console = Console(file=io.StringIO())
    render(["n"], [(n,) for n in range(1_234)], "table", console)
    shown = console.file.getvalue()
    assert " 999 " in shown and " 1000 " not in shown
    assert shown.endswith("1,234 rows, the first 1,000 shown: --format csv gives all\n")


def test_nested_values_are_json_in_csv():
    console = Console(file=io.StringIO())
    render(["m", "l"], [({"a": 1}, ["x"])], "csv", console)
    assert list(csv.reader(io.StringIO(console.file.getvalue()))) == [["m", "l"], ['{"a": 1}', '["x"]']]


def test_a_date_is_json(capsys):
    console = Console(file=io.StringIO())
    render(["d"], [(date(2026, 3, 1),)], "json", console)
    assert '"d": "2026-03-01"' in console.file.getvalue()


def test_a_schema_that_is_no_name_goes_into_no_statement(tmp_path):
    with pytest.raises(UsageError, match="'schema'"):
        run_query(tmp_path, "SELECT 1", "x`; DROP TABLE y --")
