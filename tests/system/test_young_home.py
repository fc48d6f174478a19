"""Every command and the report answer at every stage of a young home, and say in words what is not there yet."""

import html
import io
import json
import re
import sys

import pytest
from bronze_rows import append_to_bronze, event, shipped_contract

from laptop.cli import main
from streaming_pipeline.core import tables
from streaming_pipeline.silver.cleanse import cleanse_bronze_to_silver

LISTS = {
    "quarantined_events": ["quarantine", "list"],
    "baselines": ["baseline", "list"],
    "alert_outbox": ["alerts", "list"],
    "alert_silences": ["silence", "list"],
}
REJECTED = [*[event(f"r{n}", event_type="Click") for n in range(12)], *[event(f"s{n}", event_type="click ") for n in range(3)]]
REJECTED += [event("t1", event_type="refund"), event("t2", event_type="refund"), event("esc", event_type="\x1b[31mred\nSUCCESS")]


class Home:
    """The command line on the tables of one schema, and what it answered last."""

    def __init__(self, spark, home, settings, capsys):
        self.spark, self.home, self.settings, self._capsys = spark, home, settings, capsys

    def run(self, *arguments):
        code = main([*arguments, "--home", str(self.home), "--schema", self.settings.schema])
        said = self._capsys.readouterr()
        assert "Traceback" not in said.out + said.err and "\x1b" not in said.out + said.err
        return code, said.out, said.err

    def report(self):
        """The report as a reader has it: its words, without marks and pictures."""
        assert self.run("report")[0] == 0
        page = (self.home / "report.html").read_text(encoding="utf-8")
        page = re.sub(r"<style>.*?</style>|<svg.*?</svg>|<pre>.*?</pre>", " ", page, flags=re.DOTALL)
        return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())

    def insert(self, table: str, **values: str):
        """One row, of SQL expressions."""
        names, row = ", ".join(values), ", ".join(values.values())
        self.spark.sql(f"INSERT INTO {self.settings.table(table)} ({names}) VALUES ({row})")


@pytest.fixture
def young(spark, home, offline_settings, capsys):
    """A home whose schema has no table yet."""
    return Home(spark, home, offline_settings, capsys)


def answers_without(young, missing):
    """Each list and each query answers, and names the table that it lacks."""
    for table, command in LISTS.items():
        code, out, _ = young.run(*command)
        assert code == 0 and (f"{table} is not there yet" in out) == (table in missing), (table, out)
        code, out, _ = young.run(*command, "--format", "json")
        assert code == 0 and isinstance(json.loads(out), list)
    for table in tables.all_tables(shipped_contract()):
        code, out, err = young.run("sql", f"SELECT count(*) AS n FROM {table.name}", "--format", "csv")
        if table.name in missing:
            assert code == 2 and f"{table.name} is not there yet: " in err
        else:
            assert code == 0 and out.startswith("n\n"), table.name


@pytest.mark.parametrize("query", [[], ["SELECT 1"]], ids=["prompt", "query"])
def test_sql_in_a_home_without_tables_says_what_to_do(tmp_path, capsys, query):
    assert main(["sql", *query, "--home", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert f"{tmp_path} has no tables" in said and "yet: run `streaming-pipeline demo`" in said and said.count("\n") == 1


def test_every_command_and_the_report_answer_at_every_stage(young, spark):
    settings, every = young.settings, {table.name for table in tables.all_tables(shipped_contract())}
    # Nothing yet.
    commands = [["report"], ["quarantine", "show"], ["quarantine", "replay"], ["baseline", "set"], ["resend"]]
    for command in (*LISTS.values(), *commands):
        code, _, err = young.run(*command)
        assert code == 2 and "yet: " in err and err.count("\n") == 1, command

    # Bronze only.
    append_to_bronze(spark, settings, [event("a"), event("b"), event("a"), *REJECTED])
    answers_without(young, every - {"bronze_events"})
    code, _, err = young.run("quarantine", "show")
    assert code == 2 and "quarantined_events is not there yet: task 02 of a run makes it" in err
    text = young.report()
    assert "not there yet valid, typed, each event once silver_events" in text
    assert "silver_events is not there yet: task 02 of a run makes it. Until then 21 records of bronze wait. monitor_logs" in text
    assert "Pipeline: not monitored yet" in text and "The records have not been checked yet." in text
    assert "gold_anomaly_predictions is not there yet: task 04 of a run makes it" in text

    # No champion, no gold, no monitoring; then records that silver has yet to place.
    cleanse_bronze_to_silver(spark, settings)
    records = tables.record_tables(shipped_contract())
    answers_without(young, every - {table.name for table in records})
    assert "bronze 21 = silver 2 + duplicates 1 + quarantine 18. monitor_logs is not there yet" in young.report()
    append_to_bronze(spark, settings, [event("late")], first_offset=100)
    text = young.report()
    assert "bronze 22 = silver 2 + duplicates 1 + quarantine 18 + 1 not yet processed by task 02." in text
    assert 'Click (12), "click " (3), refund (2)' in text

    # Monitoring has run, and found little: no event was new, Kafka was not asked.
    monitoring = [tables.MONITOR_LOGS, tables.PROFILE_METRICS, tables.DRIFT_METRICS, tables.ANOMALY_LOGS, tables.MONITOR_STATE]
    tables.create_missing(spark, settings, [*monitoring, tables.BASELINES, tables.ALERT_OUTBOX, tables.ALERT_SILENCES])
    young.insert("monitor_logs", run_time="now()", table_name="'silver_events'", unaccounted_records="0", status="'Unknown'")
    answers_without(young, {"gold_anomaly_predictions", "benchmark_logs", "cluster_logs"})
    assert "No baseline was made yet." in young.run("baseline", "list")[1]
    assert "No alert is open" in young.run("alerts", "list")[1] and "No rule is silent." in young.run("silence", "list")[1]
    text = young.report()
    assert "Up to the last monitoring run no valid event had arrived." in text
    assert "Kafka could not be asked for lost records." in text and "Nothing: there is no alert." in text
    assert "Nothing has been compared yet" in text and "No event has been profiled yet." in text
    assert "gold_anomaly_predictions is not there yet: task 04" in text and "No model has been trained yet." in text

    # Everything is there.
    tables.create_missing(spark, settings, tables.all_tables(shipped_contract()))
    young.insert("alert_silences", rule="'drift'", until="now() + INTERVAL 2 HOURS", created_at="now()")
    young.insert("alert_silences", rule="'spike'", until="now() - INTERVAL 1 HOUR", created_at="now()")
    hours = "array(TIMESTAMP'2026-03-01 00:00:00', TIMESTAMP'2026-03-01 02:00:00')"
    young.insert("baselines", baseline_id="1", table_name="'silver_events'", name="'first'", windows=hours, created_at="now()")
    for number, (status, is_ongoing) in enumerate((("SENT", "true"), ("SENT", "false"), ("DEAD", "false")), 1):
        what = {"anomaly_type": "'drift'", "severity": "'warning'", "message": f"'m{number}'", "is_ongoing": is_ongoing}
        young.insert("alert_outbox", **what, is_recovery="false", status=f"'{status}'", created_at="now()")
    answers_without(young, set())
    assert [row["rule"] for row in json.loads(young.run("silence", "list", "--format", "json")[1])] == ["drift"]
    [made] = json.loads(young.run("baseline", "list", "--format", "json")[1])
    assert (made["name"], made["windows"], made["is_newest"], made["last_window"]) == ("first", 2, True, "2026-03-01 02:00:00.000")
    assert {row["message"] for row in json.loads(young.run("alerts", "list", "--format", "json")[1])} == {"m1", "m3"}
    text = young.report()
    assert "No event has been scored yet." in text and "is not there yet" not in text
    assert "Pipeline: Unknown · Data: 1 incident (1 warning), 1 still going on" in text  # one drift, reported three times


def test_the_quarantine_is_listed_by_value_and_shown_record_by_record(young, spark, monkeypatch):
    settings = young.settings
    append_to_bronze(spark, settings, [event("a"), *REJECTED, b"{", None, b"\x00\x00\x00\x00\x01" + event("framed", value="n/a")])
    cleanse_bronze_to_silver(spark, settings)
    listed = {row["reason"]: row for row in json.loads(young.run("quarantine", "list", "--format", "json")[1])}
    assert {reason: row["records"] for reason, row in listed.items()} == {
        "not_allowed:event_type": 18,
        "malformed_json": 1,
        "null_payload": 1,
        "wrong_type:value": 1,
    }
    values = [(one["value"], one["records"]) for one in listed["not_allowed:event_type"]["frequent_values"]]
    assert values == [("Click", 12), ("click ", 3), ("refund", 2), ("\x1b[31mred\nSUCCESS", 1)]
    assert (listed["not_allowed:event_type"]["partition"], listed["not_allowed:event_type"]["offset"]) == (0, 18)
    assert [one["value"] for one in listed["wrong_type:value"]["frequent_values"]] == ["n/a"]
    monkeypatch.setenv("COLUMNS", "400")
    _, out, _ = young.run("quarantine", "list")
    assert 'Click (12), "click " (3), refund (2)' in out and "0/18" in out
    assert young.run("quarantine", "list", "--format", "csv")[1].splitlines()[0].startswith("reason,records,distinct_values")

    _, out, _ = young.run("quarantine", "show", "0/13")
    assert "0/13 of events" in out and '"event_id": "s0"' in out and "not_allowed:event_type" in out and "no, it is open" in out
    _, out, _ = young.run("quarantine", "show", "--reason", "not_allowed")
    assert "0/18 of events" in out and "\\u001b[31mred" in out
    assert json.loads(young.run("quarantine", "show", "0/20", "--format", "json")[1])[0]["payload"] is None
    code, _, err = young.run("quarantine", "show", "0/0")
    assert code == 2 and "Record 0/0 is not in quarantined_events." in err
    assert "write PARTITION/OFFSET" in young.run("quarantine", "show", "13")[2]

    for command in ("list", "show"):
        code, _, err = young.run("quarantine", command, "--reason", "not_alowed:event_typ")
        assert code == 2 and "did you mean not_allowed:event_type" in err
    code, _, err = young.run("quarantine", "list", "--reason", "zzz")
    assert code == 2 and "the reasons there are: malformed_json, " in err
    spark.sql(f"UPDATE {settings.table('quarantined_events')} SET resolved_at = now() WHERE array_contains(reasons, 'malformed_json')")
    code, out, _ = young.run("quarantine", "list", "--reason", "malformed_json")
    assert (code, out) == (0, "No record of this choice is open.\n")


def test_many_questions_are_put_to_one_spark(young, spark, monkeypatch):
    tables.create_missing(spark, young.settings, [tables.ALERT_SILENCES])
    queries = "SELECT 1 AS a; -- a note; of two halves\n\nSELECT ';' AS b\n, 2 AS c;\n-- the end\n"
    monkeypatch.setattr(sys, "stdin", io.StringIO(queries))
    assert young.run("sql", "--format", "csv") == (0, "a\n1\nb,c\n;,2\n", "")
    monkeypatch.setattr(sys, "stdin", io.StringIO("SELECT 1 AS a; SELECT nothing; SELECT 2 AS b"))
    code, out, err = young.run("sql", "--format", "csv")
    assert (code, out) == (2, "a\n1\n") and "Spark refuses the query" in err

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    stopped = ["SELECT", KeyboardInterrupt]
    wrong = ["SELECT nothing", "", "DROP TABLE alert_silences;"]
    typed = iter(["SELECT 1 AS a;", *wrong, "SELECT count(*) AS b", "FROM alert_silences;", *stopped, "SELECT 3 AS c", "", "\\q"])

    def type_next(_):
        if (line := next(typed)) is KeyboardInterrupt:
            raise KeyboardInterrupt
        return line

    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr("builtins.input", type_next)
    code, out, _ = young.run("sql", "--format", "csv")
    assert code == 0 and re.findall(r"^([abc])\n(\d)$", out, re.MULTILINE) == [("a", "1"), ("b", "0"), ("c", "3")]
    assert "Spark refuses the query" in out and "Only queries" in out
