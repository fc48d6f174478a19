"""Alerts: which there are, when they are sent, and that none is lost or told twice."""

import socket
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from alert_cases import FOUR_HOURS, HOUR, NOON, Flaky, alert, hand_over, plan, run_delivery, web_server

from laptop.services.mailbox import running_mailbox
from streaming_pipeline.alerts import outbox
from streaming_pipeline.alerts.deliver import Refused, Temporary
from streaming_pipeline.alerts.send import fail_if_something_is_wrong, send_alerts
from streaming_pipeline.alerts.silence import parse_for, silence
from streaming_pipeline.alerts.smtp import MailServer, SmtpSettings
from streaming_pipeline.core import tables
from streaming_pipeline.core.errors import PipelineError, UsageError
from streaming_pipeline.queries import query

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "config" / "alert_rules.yml"


@contextmanager
def mail_server(certificates, tmp_path, *answers, speaks="STARTTLS", **changes):
    handler = Flaky(*answers)
    with running_mailbox(certificates, tmp_path / "mail", security=speaks, handler=handler) as (_, secrets):
        settings = replace(SmtpSettings.from_secrets(secrets), **changes)
        with MailServer(settings, 5) as server:
            yield handler, server


@pytest.mark.parametrize("security", ["STARTTLS", "TLS"])
def test_mails_go_over_tls_with_a_log_in(broker, tmp_path, security):
    with mail_server(broker.certificates, tmp_path, speaks=security) as (handler, server):
        assert hand_over(server) is hand_over(server) is None
    assert handler.taken == [["a@example.com"], ["a@example.com"]]


def test_answers_of_a_mail_server_are_told_apart(broker, tmp_path):
    answers = ("451 try later", "554 no", "hang up", "421 closing")
    with mail_server(broker.certificates, tmp_path, *answers) as (handler, server):
        with pytest.raises(Temporary, match="451 try later") as caught:
            hand_over(server)
        assert not caught.value.is_unclear
        with pytest.raises(Refused, match="554 no"):
            hand_over(server)
        with pytest.raises(Temporary, match="went away") as caught:
            hand_over(server)
        assert caught.value.is_unclear
        with pytest.raises(Temporary, match="421"):
            hand_over(server)
        hand_over(server)  # by a new connection
    assert len(handler.taken) == 1


def test_who_is_refused_for_now_gets_it_later_and_the_others_once(broker, tmp_path):
    answers = ({"b@example.com": "450 greylisted", "c@example.com": "550 unknown"}, "250 taken")
    with mail_server(broker.certificates, tmp_path, *answers) as (handler, server):
        [message] = plan([alert(recipients=("a@example.com", "b@example.com", "c@example.com"))], FOUR_HOURS, {}, NOON).messages
        outcome = run_delivery(tmp_path, [message], lambda message: hand_over(server, *message.recipients))
        [after] = outcome.alerts.values()
        assert (after.status, after.recipients) == ("PENDING", ("b@example.com",))
        assert "c@example.com: 550 unknown" in after.reason
        [again] = plan([replace(after, next_attempt_at=NOON)], FOUR_HOURS, {}, NOON).messages
        assert [one.status for one in run_delivery(tmp_path, [again], lambda m: hand_over(server, *m.recipients)).alerts.values()] == [
            "SENT"
        ]
    assert handler.taken == [["a@example.com"], ["b@example.com"]]
    with mail_server(broker.certificates, tmp_path, {"c@example.com": "550 unknown"}) as (_, server):
        assert hand_over(server, "a@example.com", "c@example.com") == "refused for c@example.com: 550 unknown"
    with (
        mail_server(broker.certificates, tmp_path, {"c@example.com": "550 unknown"}) as (_, server),
        pytest.raises(Refused, match=r"c@example.com: 550 unknown"),
    ):
        hand_over(server, "c@example.com")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"password": "wrong"}, "refuses the log-in: check SMTP_USERNAME and SMTP_PASSWORD"),
        ({"ca_location": None}, "its certificate is not trusted.*SMTP_SSL_CA_LOCATION"),
        ({"security": "TLS"}, "does not speak TLS in the way of SMTP_SECURITY TLS"),
        ({"ca_location": __file__}, "SMTP_SSL_CA_LOCATION=.*test_alerts.py cannot be used"),
        ({"ca_location": "/no/such/file"}, "SMTP_SSL_CA_LOCATION=/no/such/file cannot be used"),
        ({"username": None}, "SMTP_FROM .* is refused.*530"),
    ],
)
def test_a_wrong_mail_setting_is_named(broker, tmp_path, changes, said):
    with mail_server(broker.certificates, tmp_path, **changes) as (_, server), pytest.raises(PipelineError, match=said) as caught:
        hand_over(server)
    assert "wrong" not in str(caught.value)


def test_a_name_that_the_certificate_does_not_have_is_not_trusted(broker, tmp_path, monkeypatch):
    resolve = socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, *rest, **more: resolve("127.0.0.1" if host == "mail.test" else host, *rest, **more)
    )
    with mail_server(broker.certificates, tmp_path, host="mail.test") as (_, server), pytest.raises(UsageError, match="not trusted"):
        hand_over(server)


# --------------------------------------------------------------------------------------------------------------- the whole task


class Task:
    """Task 05 on tables of its own, of which the looks are written by hand."""

    def __init__(self, spark, settings, tmp_path):
        self.spark, self.looks = spark, 0
        config = tmp_path / "config"
        config.mkdir()
        self.rules = config / "alert_rules.yml"
        self.rules.write_text(SHIPPED.read_text())
        self.settings = replace(settings, config_dir=str(config))

    def look(self, *, drift=(), gaps=()):
        """One look, an hour behind the last; `drift` has (column, whether it drifts), `gaps` (slice, begin, end) in hours before it."""
        self.looks += 1
        at = datetime.now(UTC) - timedelta(hours=20 - self.looks)
        row = {"run_time": at, "look": self.looks, "table_name": "silver_events", "records": 10, "lost_records": 0, "latest_event_time": at}
        row |= {"status": "Healthy", "findings": {"drift": sum(drifts for _, drifts in drift), "missing_pattern": len(gaps)}}
        about = {"look": self.looks, "table_name": "silver_events", "window_start": at - HOUR, "window_end": at, "slice": "*"}
        of_drift = {"comparison": "baseline", "value": 0.3, "threshold": 0.1}
        judged = [
            {**about, **of_drift, "column_name": column, "metric": metric, "is_drift": drifts, "severity": "critical" if drifts else None}
            for column, drifts in drift
            for metric in ("psi", "ks")
        ]
        of_gap = {**about, "detector": "gap", "anomaly_type": "missing_pattern", "series": "arrivals", "observed": 0.0, "threshold": 18.4}
        odd = [
            {**of_gap, "slice": name, "window_start": at - begin * HOUR, "window_end": at - end * HOUR}
            | {"expected": 50 * (begin - end), "score": 50 * (begin - end), "severity": "critical" if name == "*" else "warning"}
            for name, begin, end in gaps
        ]
        for table, rows in ((tables.DRIFT_METRICS, judged), (tables.ANOMALY_LOGS, odd), (tables.MONITOR_LOGS, [row])):
            if rows:
                tables.append_rows(self.spark, self.settings, table, rows)

    def send(self, states=None, run="r1", **secrets):
        settings = replace(self.settings, run_id=run)
        return send_alerts(self.spark, settings, states or {}, lambda: secrets, "file:///run", patience=timedelta())

    def held(self):
        rows = self.spark.table(self.settings.table("alert_outbox")).orderBy("created_at", "anomaly_type").collect()
        return [(row["anomaly_type"], row["subject"], row["status"]) for row in rows]


@pytest.fixture
def task(spark, offline_settings, tmp_path):
    return Task(spark, offline_settings, tmp_path)


BAD = {"01_stream_kafka_to_bronze": "failed", "02_bronze_to_silver_cleanse": "upstream_failed"}
DRIFT, GAP = ("drift", "value", "PENDING"), ("missing_pattern", "arrivals", "PENDING")


def test_of_several_silences_the_one_that_goes_on_is_told_with_its_own_time(task, mailbox):
    box, secrets = mailbox
    # One long over; its alert holds back none of a silence that begins later.
    task.look(gaps=[("*", 12, 4), ("a", 14, 3)])
    assert task.send(**secrets).note == "1 alert sent in 1 message"
    over = box.mails[-1].get_body(("plain",)).get_content()
    assert "arrivals: 0 in 8 hours, where 400 are usual" in over and "State: it was over when monitoring found it" in over
    assert "Next: Events arrive again." in over and "docs/runbook.md" in over
    task.look(gaps=[("*", 13, 5), ("*", 0.6, 0), ("a", 2.5, 0)])
    assert task.send(**secrets).note == "1 alert sent in 1 message"
    mail = box.mails[-1].get_body(("plain",)).get_content()
    [told] = [line for line in mail.splitlines() if line.startswith("arrivals")]
    at = task.spark.table(task.settings.table("monitor_logs")).agg({"run_time": "max"}).first()[0].astimezone(UTC)
    times = f"{at - 0.6 * HOUR:%Y-%m-%d %H:%M} to {at:%H:%M} UTC" if (at - 0.6 * HOUR).date() == at.date() else ""
    assert (
        told.startswith("arrivals: 0 in 36 minutes, where 30 are usual, ")
        and told.endswith(". The query shows 1 other silence.")
        and times in told
    )
    assert "still going on; a message will say when it is over" in mail and f"Event time: {at - 0.6 * HOUR:%Y-%m-%d %H:%M:%S} UTC" in mail
    assert "Rows: 3" in mail
    # It goes on, and is told again when its cooldown is over; or is over, which is told once and at once.
    task.look(gaps=[("*", 1.6, 0)])
    assert task.send(**secrets).note == "1 alert held back by a cooldown (missing pattern: arrivals)"
    task.look(gaps=[("*", 2.6, 0.5)])
    assert task.send(**secrets).note == "1 alert sent in 1 message, 2 alerts muted (missing pattern: arrivals)"
    assert box.mails[-1]["Subject"].startswith("[RECOVERED]")
    task.spark.sql(f"USE `{task.settings.schema}`")
    states = [row["state"] for row in task.spark.sql(query("alerts")).collect()]
    assert sorted(states) == ["", "", "", "over by now", "over when found"]  # the two that are muted have none
    # Nor has a loss that was accepted: it has no end, and did not end before it was found.
    task.spark.sql("INSERT INTO monitor_logs (run_time, table_name, lost_records) VALUES (now(), 'bronze_events', 7)")
    assert task.send(**secrets).note == "1 alert sent in 1 message"
    assert "over when found" not in box.mails[-1]["Subject"]
    [lost] = [row for row in task.spark.sql(query("alerts")).collect() if row["anomaly_type"] == "records_lost"]
    assert (lost["status"], lost["state"]) == ("SENT", "")


def test_alerts_wait_until_there_is_a_mail_server_and_are_told_once(task, mailbox):
    box, secrets = mailbox
    task.look(drift=[("value", True), ("other", False)], gaps=[("*", 1, 0)])
    sending = task.send()
    assert task.held() == [DRIFT, GAP]
    assert sending.note == "2 alerts waiting (drift: value, missing pattern: arrivals): SMTP_HOST is not set"
    fail_if_something_is_wrong(sending)

    # A wrong setting fails the task and loses nothing.
    sending = task.send(**{**secrets, "SMTP_PASSWORD": "wrong-p4ssword"})
    with pytest.raises(PipelineError, match="SMTP_PASSWORD") as caught:
        fail_if_something_is_wrong(sending)
    assert "wrong-p4ssword" not in str(caught.value)
    assert (sending.records, task.held()) == (0, [DRIFT, GAP])

    before = len(box.mails)
    assert task.send(**secrets).note == "2 alerts sent in 1 message"
    [mail] = box.mails[before:]
    assert mail["Subject"].startswith(f"[CRITICAL] {task.settings.schema}: drift: value; missing pattern: arrivals")
    text = mail.get_body(("plain",)).get_content()
    assert " 0.3 (limit " in text and "drift in 1 of 1 window judged" in text
    mailed = next(line for line in text.splitlines() if "Query: " in line and "drift_metrics" in line)
    assert task.spark.sql(mailed.split("Query: ")[1]).count() == 2

    # The queries that the docs show, word for word.
    task.spark.sql(f"USE `{task.settings.schema}`")
    documented = (ROOT / "docs" / "alerts.md").read_text()
    assert query("alerts") in documented and query("silences") in documented
    assert {tuple(row["recipients"]) for row in task.spark.sql(query("alerts")).collect()} == {("on-call@localhost.localdomain",)}

    # It goes on, and its rule is silent; the end of the other is told.
    silence(task.spark, task.settings, "drift", parse_for("4h"))
    task.look(drift=[("value", True)])
    assert task.send(**secrets).note == "1 alert sent in 1 message, 1 alert muted (drift: value)"
    assert box.mails[-1]["Subject"] == f"[RECOVERED] {task.settings.schema}: over: missing pattern: arrivals"
    states = [(row["anomaly_type"], row["is_recovery"], row["state"]) for row in task.spark.sql(query("alerts")).collect()]
    gap, drift = "missing_pattern", "drift"
    # Of what nobody is told there will be no end.
    assert sorted(states) == [(drift, False, ""), (drift, False, "goes on"), (gap, False, "over by now"), (gap, True, "")]
    assert [row["rule"] for row in task.spark.sql(query("silences")).collect()] == ["drift"]


def test_a_failed_run_is_told_whatever_else_is_wrong(task, mailbox):
    task.look(drift=[("value", True)])
    task.rules.write_text("rules: [")
    sending = task.send(BAD, **mailbox[1])
    assert task.held() == [("job_failed", "01_stream_kafka_to_bronze", "SENT")]
    with pytest.raises(PipelineError, match=r"01_stream_kafka_to_bronze failed.*alert_rules.yml line 1: not valid YAML"):
        fail_if_something_is_wrong(sending)

    def unreadable():
        raise UsageError("Parameter 'secret_scope': the scope 's' cannot be read.")

    task.rules.write_text(SHIPPED.read_text())
    sending = send_alerts(task.spark, replace(task.settings, run_id="r2"), BAD, unreadable, patience=timedelta())
    assert task.held()[-1] == ("job_failed", "01_stream_kafka_to_bronze", "PENDING")
    with pytest.raises(PipelineError, match="the scope 's' cannot be read"):
        fail_if_something_is_wrong(sending)
    # What the look had found was not lost by either.
    sending = task.send({"01_stream_kafka_to_bronze": "success"}, "r3", **mailbox[1])
    assert [(one.anomaly_type, one.is_recovery) for one in sending.new] == [("drift", False), ("job_failed", True)]
    fail_if_something_is_wrong(sending)


def test_an_alert_that_is_refused_fails_the_task_and_one_that_a_killed_run_had_sent_is_not_sent_again(task, broker, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    write = outbox.update

    def killed(spark, settings, alerts):
        if any(one.status == "SENT" for one in alerts):
            raise Killed
        write(spark, settings, alerts)

    task.look(drift=[("value", True)], gaps=[("*", 1, 0)])
    task.rules.write_text(SHIPPED.read_text().replace("group: true", "group: false"))
    handler = Flaky("554 no such list")
    with running_mailbox(broker.certificates, tmp_path / "mail", handler=handler) as (_, secrets):
        with monkeypatch.context() as dying, pytest.raises(Killed):
            dying.setattr(outbox, "update", killed)
            task.send(**secrets)
        assert len(handler.taken) == 1 and sorted(status for *_, status in task.held()) == ["PENDING", "PENDING"]
        handler.answers = ["554 no such list"]  # that one knew of the refusal, and told nobody
        sending = task.send(**secrets)
        assert len(handler.taken) == 1 and sorted(status for *_, status in task.held()) == ["DEAD", "SENT"]
        with pytest.raises(PipelineError, match=r"1 alert could not be delivered: DEAD.*554 no such list"):
            fail_if_something_is_wrong(sending)
        assert outbox.resend(task.spark, task.settings) == 1
        assert task.send(**secrets).note == "1 alert sent in 1 message"


def test_both_channels_get_each_alert_and_fail_by_themselves_also_in_an_outbox_of_an_older_version(task, mailbox):
    first = tables.ALERT_OUTBOX.columns[:12]
    assert first[-1][0] == "run_id"  # it ended there
    row = dict.fromkeys([name for name, *_ in first], None)
    row |= {
        "alert_id": "1",
        "fingerprint": "job_failed/01",
        "anomaly_type": "job_failed",
        "severity": "critical",
        "message": "x",
        "run_id": "r",
    }
    row |= {"status": "PENDING", "attempts": 0, **dict.fromkeys(("event_time", "next_attempt_at", "created_at"), datetime.now(UTC))}
    tables.append_rows(task.spark, task.settings, replace(tables.ALERT_OUTBOX, columns=first), [row])
    task.look(gaps=[("*", 1, 0)])
    with web_server(500) as (url, bodies):
        note = task.send(**mailbox[1], ALERT_WEBHOOK_URL=url).note
        assert note == "2 alerts sent in 1 message, 1 alert waiting (missing pattern: arrivals): the webhook answers 500"
        task.spark.sql(f"UPDATE {task.settings.table('alert_outbox')} SET next_attempt_at = created_at")
        assert task.send(**mailbox[1], ALERT_WEBHOOK_URL=url).note == "1 alert sent in 1 message"
    assert len(bodies) == 2 and "missing pattern: arrivals" in bodies[1]["text"]


def damage(task, home, table, text=None):
    """Let the newest commit of a table hold this text, or be gone."""
    [*_, file] = sorted((home / "warehouse" / f"{task.settings.schema}.db" / table / "_delta_log").glob("*.json"))
    for checksum in (file.with_suffix(".crc"), file.with_name(f".{file.name}.crc")):
        checksum.unlink(missing_ok=True)
    file.unlink() if text is None else file.write_text(text)
    task.spark._jvm.org.apache.spark.sql.delta.DeltaLog.clearCache()


def test_alerts_that_cannot_be_read_keep_back_neither_a_failed_run_nor_that_they_cannot(task, mailbox, home):
    box, secrets = mailbox
    task.look()
    task.send(**secrets)
    damage(task, home, "alert_outbox", "garbage{")
    before = len(box.mails)
    for _ in range(2):  # a retry of the task tells it once
        sending = task.send(BAD, run="r2", **secrets)
        assert "alert_outbox" in sending.problems[0] and "only failed runs are reported" in sending.problems[1]
        with pytest.raises(PipelineError, match="alert_outbox"):
            fail_if_something_is_wrong(sending)
    [mail] = box.mails[before:]
    assert "01_stream_kafka_to_bronze, reading alert_outbox failed" in mail.get_body(("plain",)).get_content()
    task.send({}, run="r3", **secrets)
    assert "reading alert_outbox failed" in box.mails[-1].get_body(("plain",)).get_content()


def test_where_silences_cannot_be_read_no_rule_is_silent_and_that_is_said(task, mailbox, home):
    silence(task.spark, task.settings, "drift", parse_for("4h"))
    damage(task, home, "alert_silences", "garbage{")
    task.look(drift=[("value", True)])
    sending = task.send(**mailbox[1])
    assert [alert.anomaly_type for alert in sending.became["sent"]] == ["drift"]
    assert "alert_silences" in sending.note and "No rule is taken for silent." in sending.note


def test_alerts_that_the_table_has_lost_are_derived_again(task, mailbox, home):
    task.look(drift=[("value", True)])
    assert task.send().became["waiting"]
    damage(task, home, "alert_outbox")
    assert task.send(**mailbox[1]).note == "1 alert sent in 1 message"
    assert task.send(**mailbox[1]).note == ""


@pytest.mark.parametrize(("status", "severity"), [("Unknown", "warning"), ("Unhealthy", "critical")])
def test_a_topic_that_was_recreated_is_told_though_nobody_knows_how_many_records_are_gone(task, mailbox, status, severity):
    reason = "Topic t was recreated (id a, now b): records of the old one are gone, if there were any."
    row = {"run_time": datetime.now(UTC), "table_name": "bronze_events", "status": status, "status_reason": reason}
    tables.append_rows(task.spark, task.settings, tables.MONITOR_LOGS, [row])
    [alert] = task.send(**mailbox[1]).became["sent"]
    assert (alert.anomaly_type, alert.severity, alert.message) == ("records_lost", severity, reason)


def test_what_is_damaged_of_journal_and_tables_is_named_and_the_rest_is_told(task, mailbox):
    box, secrets = mailbox
    task.look(drift=[("value", True)])
    folder = Path(task.settings.runs_dir, "alerts", task.settings.schema)
    (folder / "sent").mkdir(parents=True)
    (folder / "sent" / "abc.begun").write_text("5")
    (folder / "derived_until").write_text("9999-01-01T00:00:00+00:00")  # nothing would ever be new
    now = datetime.now(UTC)
    row = {"fingerprint": "f", "anomaly_type": "drift", "severity": "warning", "event_time": now, "message": "x", "run_id": "r"}
    row |= {"next_attempt_at": now, "created_at": now, "status": "PENDING", "channel": "email", "recipients": [], "attempts": 0}
    wrong = [
        {"severity": "dire\x1b"},
        {"channel": "pigeon"},
        {"message": None},
        {"recipients": ["a@b.c\r\nRCPT TO:<x@y.z>"]},
        {"alert_id": None},
    ]
    tables.create_missing(task.spark, task.settings, [tables.ALERT_OUTBOX, tables.ALERT_SILENCES])
    for number, change in enumerate(wrong):
        tables.append_rows(task.spark, task.settings, tables.ALERT_OUTBOX, [{**row, "alert_id": f"bad{number}", **change}])
    tables.append_rows(task.spark, task.settings, tables.ALERT_SILENCES, [{"rule": "drift", "until": None, "created_at": now}])

    before = len(box.mails)
    sending = task.send(**secrets)
    fail_if_something_is_wrong(sending)
    assert len(box.mails) == before + 1 and [one.anomaly_type for one in sending.became["sent"]] == ["drift"]
    assert sending.note.startswith("1 alert sent in 1 message; ") and "abc.begun cannot be read (it is no list of alerts)" in sending.note
    assert sending.note.endswith("3 more cannot be read.") and len(sending.damaged) == 6
    said = " ".join(sending.damaged)
    for named in (
        r"severity is 'dire\x1b'",
        "channel is 'pigeon'",
        "message is NULL",
        "of its recipients is no e-mail address",
        "alert_id is NULL",
    ):
        assert named in said
    assert said.isprintable()
    # The file is named once, the rows until somebody has looked at them.
    assert len(task.send(**secrets).damaged) == 5


def test_a_silence_names_a_rule_and_a_time(spark, offline_settings):
    with pytest.raises(UsageError, match=r"'rule' is 'drfit': there is no such rule. Rules: job_failed"):
        silence(spark, offline_settings, "drfit", HOUR)
    for text in ("", "4", "four hours", "40d", "-1h"):
        with pytest.raises(UsageError, match="Parameter 'duration'"):
            parse_for(text)
