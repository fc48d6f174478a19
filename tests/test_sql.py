"""`sql`: what is a query, and how a result is shown."""

import csv
import io
from datetime import date, datetime

import pytest
from rich.console import Console

from streaming_pipeline.errors import UsageError
from streaming_pipeline.local.sql import _is_query, render, run_query

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
    # A pipe has no width: each row stays one line.
    piped = lines(force_terminal=False)
    assert any(all(f"{'x' * 30}{n}" in line for n in range(20)) for line in piped)


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
    ],
)
def test_only_what_reads_is_a_query(spark, text, reads):
    assert _is_query(spark, text) == reads


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
