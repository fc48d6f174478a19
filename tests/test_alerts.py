"""Alerts: which there are, when they are sent, and that none is lost or told twice."""

import http.server
import json
import random
import socket
import threading
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.parser import BytesParser
from email.policy import SMTP, default
from pathlib import Path

import pandas as pd
import pytest
from pyspark.sql import Row

from laptop.services.mailbox import running_mailbox
from streaming_pipeline.alerts import deliver as delivery
from streaming_pipeline.alerts import findings, outbox
from streaming_pipeline.alerts.deliver import MAX_ATTEMPTS, Journal, Outcome, Refused, Temporary, deliver
from streaming_pipeline.alerts.derive import Occasion, derive
from streaming_pipeline.alerts.findings import KINDS, Finding, Look
from streaming_pipeline.alerts.mail import MOST_WHOLE, compose, webhook_text
from streaming_pipeline.alerts.outbox import Alert
from streaming_pipeline.alerts.rules import Rule, Rules, load_rules, parse_rules
from streaming_pipeline.alerts.send import fail_if_something_is_wrong, run_link, send_alerts
from streaming_pipeline.alerts.silence import parse_for, silence
from streaming_pipeline.alerts.smtp import MailServer, SmtpSettings
from streaming_pipeline.alerts.webhook import check_url, post
from streaming_pipeline.core import tables
from streaming_pipeline.core.errors import PipelineError, UsageError
from streaming_pipeline.core.settings import Settings
from streaming_pipeline.queries import query

ROOT = Path(__file__).parents[1]
SHIPPED = ROOT / "config" / "alert_rules.yml"
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


# ------------------------------------------------------------------------------------------------------------------- the rules


def test_the_shipped_rules_tell_of_every_kind_but_single_strange_events():
    rules = load_rules(SHIPPED)
    assert {rule.finding for rule in rules.rules} == set(KINDS) - {"outlier"}
    text = SHIPPED.read_text()
    listed = text[text.index("finding     ") : text.index("subjects ")]
    assert {word.strip("#| \n") for word in listed.replace("finding ", "").split("|")} == set(KINDS)
    # What is commented out works once it is not.
    shown = text.replace("  # - name: outliers_of_value", "  - name: outliers_of_value").replace("  #   ", "    ")
    assert parse_rules(shown).rules[-1] == Rule("outliers_of_value", "outlier", ("value",), "warning", cooldown=timedelta(days=1))


RULE = "rules:\n  - {name: a, finding: drift"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rules: [", "not valid YAML"),
        ("[]", "the file: must be a mapping"),
        ("{}", "'rules' is missing"),
        ("rules: no", "rules: must be a list"),
        ("rules: []\nrule: []", "unknown key 'rule'; known keys: group, recipients, rules"),
        ("rules: []\ngroup: maybe", "group: must be true or false, not 'maybe'"),
        ("rules: [5]", "rules[0]: must be a mapping"),
        ("rules:\n  - {name: a}", "rules[0]: 'finding' is missing"),
        ("rules:\n  - {name: 'a b', finding: drift}", "rules[0].name: 'a b'"),
        ("rules:\n  - {name: a, finding: drifts}", "rule a.finding: 'drifts' is not one of job_failed, "),
        (f"{RULE}, cooldown: 4}}", "rule a.cooldown: 4 is not a time such as 30m, 4h or 7d"),
        (f"{RULE}, cooldown: 31d}}", "rule a.cooldown: '31d' is not a time"),
        (f"{RULE}, severity: high}}", "rule a.severity: 'high' is not one of info, warning, critical"),
        (f"{RULE}, at_least: [info]}}", "rule a.at_least: ['info'] is not one of"),
        (f"{RULE}, channels: [sms]}}", "rule a.channels: 'sms' is not one of email, webhook"),
        (f"{RULE}, subjects: value}}", "rule a.subjects: must be a list of texts"),
        (f"{RULE}, recipients: ['me']}}", "rule a.recipients: 'me' is not an e-mail address"),
        (f"{RULE}, recipients: ['<team@example.com>']}}", "is not an e-mail address such as team@example.com"),
        (f"{RULE}, recipients: ['a@b.c.', '(x)a@b.c']}}", "'a@b.c.' is not an e-mail address"),
        ("rules: []\nrecipients: ['a@b.c, d@e.f']", "recipients: 'a@b.c, d@e.f' is not an e-mail address"),
        ('rules: []\nrecipients: ["a@b.c\\nBcc: x@y.z"]', "is not an e-mail address"),
        (f"{RULE}}}\n  - {{name: a, finding: spike}}", "rules: the name 'a' stands there twice"),
    ],
)
def test_a_wrong_rule_is_named_with_its_key(text, said):
    with pytest.raises(UsageError) as caught:
        parse_rules(text, "config/alert_rules.yml")
    assert str(caught.value).startswith("config/alert_rules.yml") and said in str(caught.value)


def test_the_first_rule_that_fits_decides():
    rules = parse_rules(
        """
recipients: [all@example.com]
rules:
  - {name: critical value, finding: drift, subjects: [value], at_least: critical, recipients: [boss@example.com], severity: warning}
  - {name: rest, finding: drift, cooldown: 2h}
""".replace("critical value", "critical-value")
    )
    assert rules.for_finding("drift", "value", "critical").name == "critical-value"
    assert rules.for_finding("drift", "value", "warning").name == rules.for_finding("drift", "other", "critical").name == "rest"
    assert rules.for_finding("spike", "value", "critical") is None
    assert [rule.recipients for rule in rules.rules] == [("boss@example.com",), ("all@example.com",)]
    [alert] = derived([(look(1), [finding("drift", severity="critical")])], rules)
    assert (alert.rule, alert.severity, alert.recipients) == ("critical-value", "warning", ("boss@example.com",))


# ------------------------------------------------------------------------------------------------------------------ which there are


def look(number, *judged, at=None):
    at = at or NOON + number * HOUR
    return Look(at, number, frozenset(judged))


def finding(kind, subject="value", severity="warning", began=0.0, ended: float | None = 1.0, metric="psi", number=1):
    """A finding whose window is in hours before the end of a look."""
    at = NOON + number * HOUR - HOUR
    end = None if ended is None else at + ended * HOUR
    return Finding(
        kind, "silver_events", subject, severity, f"{kind} of {subject}", at + began * HOUR, end, 3, metric, 0.5, None, 0.1, "SELECT 1"
    )


def derived(looks, rules=None, known=(), *, failure=None, well=False, run="r1", now=NOON + 9 * HOUR, channels=("email",)):
    return derive(looks, failure, well, rules or load_rules(SHIPPED), known, Occasion(run, "file:///run", channels, now))


def test_deriving_twice_adds_nothing_and_each_channel_has_its_own():
    looks = [(look(1), [finding("drift"), finding("spike", "arrivals")])]
    first = derived(looks, channels=("email", "webhook"))
    assert len({alert.alert_id for alert in first}) == len(first) == 4
    assert derived(looks, known=first, channels=("email", "webhook")) == []
    # A look that was derived alone and one that comes with others give the same ids.
    both = derived([*looks, (look(2), [finding("drift", number=2)])], channels=("email", "webhook"))
    assert {alert.alert_id for alert in first} < {alert.alert_id for alert in both}


def test_a_finding_that_no_rule_fits_is_told_to_nobody():
    assert derived([(look(1), [finding("outlier")])]) == []


EVERY = Finding("records_rejected", "silver_events", "", "critical", "400 of 400 rejected", NOON, None, observed=100.0)


def test_where_every_record_is_rejected_one_alert_tells_it_and_not_one_for_each_field():
    fields = [finding("schema_change", f"field_{n}", metric="schema_added") for n in range(10)]
    stale = Finding("stale", "silver_events", "", "critical", "old", NOON, None)
    findings = [*fields, stale, EVERY, finding("spike", "arrivals")]
    assert [alert.anomaly_type for alert in derived([(look(1), findings)])] == ["records_rejected", "spike"]
    # A part of the records, or rules that do not want to hear of it, hide nothing.
    assert len(derived([(look(1), [*fields, replace(EVERY, observed=99.0)])])) == 11
    without = Rules(tuple(rule for rule in load_rules(SHIPPED).rules if rule.name != "records_rejected"))
    assert len(derived([(look(1), [*fields, EVERY])], without)) == 10
    # What is not told is not over either.
    told = derived([(look(1), [stale])])
    assert [one.anomaly_type for one in derived([(look(2, ("stale", "")), [stale, EVERY])], known=told)] == ["records_rejected"]


def log_row(**columns):
    """A row of monitor_logs; what is not given is NULL."""
    row = dict.fromkeys(tables.MONITOR_LOGS.column_names)
    return Row(**{**row, "run_time": NOON, "look": 1, "table_name": "silver_events", "status": "Healthy", "problems": {}, **columns})


def of_log(**columns):
    return list(findings._of_log(log_row(**columns), Settings(catalog="main")))


def test_each_problem_of_a_look_is_a_finding_with_its_numbers_and_ends_when_a_look_at_enough_records_has_none():
    problems = {"stale": "the newest event is 9 s old", "records_rejected": "50 of 100 records rejected", "records_repeated": "30 of 100 …"}
    counts = {"records": 20, "quarantined_events": 50, "duplicate_events": 30}
    found = of_log(status="Unhealthy", problems=problems, **counts)
    assert [(one.kind, one.severity, one.observed) for one in found] == [
        ("stale", "critical", None),
        ("records_rejected", "critical", 50.0),
        ("records_repeated", "warning", 30.0),
    ]
    assert found[1].text == "50 of 100 records rejected."
    [part] = of_log(problems={"records_rejected": "it is so"}, **{**counts, "quarantined_events": 20})
    assert part.severity == "warning"

    known = derived([(look(1), found)])
    nothing = pd.DataFrame({"look": []})
    few, enough = (findings._look(log_row(run_time=NOON + 2 * HOUR, look=2, records=n), nothing) for n in (19, 20))
    assert {alert.anomaly_type for alert in derived([(few, [])], known=known)} == {"stale"}
    over = derived([(enough, [])], known=known)
    assert {(alert.anomaly_type, alert.is_recovery) for alert in over} == {(kind, True) for kind in problems}


def test_a_look_of_an_older_version_names_the_first_problem_alone():
    reason = {"status": "Unhealthy", "status_reason": "nothing came", "problems": None}
    assert [one.kind for one in of_log(**reason)] == ["stale"]
    assert [one.kind for one in of_log(**reason, unaccounted_records=1)] == ["records_unaccounted"]
    nothing = pd.DataFrame({"look": []})
    judged = [findings._look(log_row(problems=problems, unaccounted_records=1), nothing).judged for problems in (None, {})]
    assert [("stale", "") in kinds for kinds in judged] == [False, True]


def test_conflicts_are_told_and_have_no_end():
    [conflict] = of_log(conflicting_events=3, duplicate_events=3)
    assert conflict.text == "3 records repeat the id of an event and have other content: silver keeps the first."
    assert [(one.anomaly_type, one.is_ongoing) for one in derived([(look(1), [conflict])])] == [("records_conflicting", False)]
    assert of_log(conflicting_events=0, duplicate_events=3) == []


def test_strange_minutes_are_not_told_as_events():
    at = pd.Timestamp("2026-03-02T10:00:00Z")
    row = {"look": 1, "table_name": "silver_events", "anomaly_type": "outlier", "slice": "view", "severity": "warning"}
    row |= {"detector": "zscore", "observed": 3_000.0, "expected": 1_500.0, "score": 9.0, "threshold": 4.5, "event_time": at}
    minutes = {"series": "mean(value)", "event_id": None, "window_start": at, "window_end": at + timedelta(minutes=1)}
    event = {"series": "value", "event_id": "7", "window_start": pd.NaT, "window_end": pd.NaT}
    rows = pd.DataFrame([row | minutes, row | event])
    by_mean, by_value = findings._of_anomalies(rows, None, Settings(catalog="main"))
    told = "the strangest of view: 3,000 where 1,500 is usual (zscore 9, limit 4.5), 2026-03-02 10:00"
    assert by_mean.text == f"strange minutes by mean(value); {told} to 10:01 UTC."
    assert by_value.text == f"1 strange event by value; {told} UTC."


def test_the_end_is_told_once_when_it_was_judged_and_not_found():
    drift = finding("drift")
    first = derived([(look(1), [drift])])
    assert [alert.is_ongoing for alert in first] == [True]
    assert derived([(look(2), [])], known=first) == []  # nothing was judged: nobody knows
    assert derived([(look(2, ("drift", "other")), [])], known=first) == []
    over = derived([(look(2, ("drift", "value")), [])], known=first)
    assert [(alert.is_recovery, alert.severity, alert.fingerprint) for alert in over] == [(True, "info", first[0].fingerprint)]
    assert "2026-03-01 12:00" in over[0].message
    assert derived([(look(3, ("drift", "value")), [])], known=[*first, *over]) == []
    again = derived([(look(4, ("drift", "value")), [finding("drift", number=4)])], known=[*first, *over])
    assert [alert.is_recovery for alert in again] == [False]


def test_an_end_goes_to_whom_the_rule_names_and_of_what_nobody_was_told_there_is_none():
    first = derived([(look(1), [finding("drift")])])
    narrowed = [replace(one, status="SENT", recipients=("late@example.com",)) for one in first]
    [over] = derived([(look(2, ("drift", "value")), [])], known=narrowed)
    assert over.recipients == ()
    assert derived([(look(2, ("drift", "value")), [])], known=[replace(one, status="DEAD") for one in first]) == []


def test_what_was_found_and_is_over_in_the_newest_window_ends():
    first = derived([(look(1), [finding("drift")])])
    ended = replace(finding("drift", number=2), is_ongoing=False)
    alerts = derived([(look(2, ("drift", "value")), [ended])], known=first)
    assert [(one.is_recovery, one.is_ongoing) for one in alerts] == [(False, False), (True, False)]


def test_what_goes_on_is_not_over_though_no_rule_wants_to_hear_of_it_any_more():
    rules = parse_rules("rules:\n  - {name: a, finding: drift, at_least: critical, channels: [email, email]}")
    first = derived([(look(1), [finding("drift", severity="critical")])], rules)
    assert len(first) == 1
    assert derived([(look(2, ("drift", "value")), [finding("drift", severity="warning", number=2)])], rules, first) == []
    assert derived([(look(2, ("drift", "value")), [])], rules, first)[0].is_recovery


def test_something_old_that_comes_to_light_does_not_hide_what_goes_on():
    first = derived([(look(1), [finding("missing_pattern", "arrivals")])])
    long_ago = replace(finding("missing_pattern", "arrivals", began=-90, ended=-80, number=2), is_ongoing=False)
    old = derived([(look(2), [long_ago])], known=first)
    # No look has judged it to be over.
    assert [one.is_recovery for one in old] == [False]
    over = derived([(look(3, ("missing_pattern", "*")), [])], known=[*first, *old])
    assert [one.is_recovery for one in over] == [True]


def test_scores_are_muted_by_a_schema_break_of_their_day():
    broken = derived([(look(1), [finding("schema_change", metric="schema_removed")])])
    day = replace(finding("concept_drift", "anomaly_score", number=12), began=NOON - 12 * HOUR, ended=NOON + 12 * HOUR)
    assert [one.status for one in derived([(look(14), [day])], known=broken)] == ["MUTED"]


def test_begin_and_end_are_found_among_looks_of_one_run():
    alerts = derived([(look(1), [finding("missing_pattern", "arrivals")]), (look(2, ("missing_pattern", "*")), [])])
    assert [alert.is_recovery for alert in alerts] == [False, True]


def test_of_what_was_over_when_it_was_found_no_end_is_told():
    long_ago = replace(finding("missing_pattern", "arrivals", began=-48, ended=-47), is_ongoing=False)
    first = derived([(look(1), [long_ago])])
    assert [alert.is_ongoing for alert in first] == [False]
    assert derived([(look(2, ("missing_pattern", "*")), [])], known=first) == []


def test_a_spike_and_a_loss_have_no_end():
    loss = Finding("records_lost", "bronze_events", "", "critical", "5 records expired unread", NOON, None)
    first = derived([(Look(NOON, None), [loss]), (look(1), [finding("spike", "arrivals")])])
    assert [alert.is_ongoing for alert in first] == [False, False]


def test_a_failed_run_is_told_once_and_its_end_with_the_next_good_one():
    failed = Finding("job_failed", "", "01_stream_kafka_to_bronze", "critical", "it failed", NOON, None)
    first = derived([], failure=failed)
    assert derived([], failure=failed, known=first) == []
    assert len(derived([], failure=failed, known=first, run="r2")) == 1
    [over] = derived([], known=first, well=True, run="r2")
    assert over.is_recovery and "r2" in over.message
    assert derived([], known=[*first, over], well=True, run="r3") == []


@pytest.mark.parametrize(("metric", "field", "hours", "muted"), [
    ("schema_removed", "value", 0, True),
    ("schema_retyped", "other", 0, True),
    ("schema_added", "channel", 0, False),  # adds, and takes nothing away
    ("schema_removed", "value", -5, False),  # another time
])  # fmt: skip
def test_a_schema_break_mutes_the_drift_that_it_causes(metric, field, hours, muted):
    broken = finding("schema_change", field, began=hours, ended=hours + 1, metric=metric)
    alerts = derived([(look(1), [finding("drift"), broken, finding("spike", "arrivals")])])
    status = {alert.anomaly_type: alert.status for alert in alerts}
    assert status == {"drift": "MUTED" if muted else "PENDING", "schema_change": "PENDING", "spike": "PENDING"}
    # Of what was not told no end is told.
    assert [alert.is_recovery for alert in derived([(look(2, ("drift", "value")), [])], known=alerts)] == ([] if muted else [True])


# ------------------------------------------------------------------------------------------------------------------ when they are sent


def alert(
    name="drift", *, at=NOON, status="PENDING", sent=None, recovery=False, channel="email", recipients=(), message=None, kind="drift"
):
    return Alert(
        alert_id=f"{name}-{at.isoformat()}-{recovery}-{channel}", fingerprint=name, anomaly_type=kind, severity="warning", event_time=at,
        message="what", next_attempt_at=at, created_at=at, run_id="r", rule=kind, channel=channel, recipients=recipients, status=status,
        sent_at=sent, is_recovery=recovery,
    )  # fmt: skip


def plan(alerts, rules, silences, now, begun=()):
    return delivery.plan(alerts, rules, silences, now, dict(begun))


FOUR_HOURS = Rules((Rule("drift", "drift", cooldown=4 * HOUR),))


def test_a_storm_is_one_message_for_each_channel_and_its_recipients():
    alerts = [alert(f"a{n}") for n in range(50)] + [alert("b", channel="webhook"), alert("c", recipients=("x@example.com",))]
    planned = plan(alerts, FOUR_HOURS, {}, NOON)
    assert sorted(len(message.alerts) for message in planned.messages) == [1, 1, 50]
    ungrouped = plan(alerts, replace(FOUR_HOURS, group=False), {}, NOON)
    assert len({message.message_id for message in ungrouped.messages}) == 52


def test_the_cooldown_counts_from_the_delivery_and_what_came_in_between_is_told_behind_it():
    sent = alert(status="SENT", sent=NOON + HOUR)
    waits, more = alert(at=NOON + 2 * HOUR), alert(at=NOON + 3 * HOUR)
    planned = plan([sent, waits, more], FOUR_HOURS, {}, NOON + 4.9 * HOUR)
    assert (planned.messages, [one.status for one in planned.held]) == ([], ["PENDING", "PENDING"])
    assert "next from 2026-03-01 17:00" in planned.held[0].reason
    planned = plan([sent, waits, more], FOUR_HOURS, {}, NOON + 5 * HOUR)
    assert [len(message.alerts) for message in planned.messages] == [2]
    # What never arrived holds nothing back, nor does another fingerprint.
    assert len(plan([replace(sent, status="DEAD", sent_at=None), waits], FOUR_HOURS, {}, NOON + 2 * HOUR).messages) == 1
    assert len(plan([sent, alert("other", at=NOON + 2 * HOUR)], FOUR_HOURS, {}, NOON + 2 * HOUR).messages) == 1


def test_a_clock_that_was_set_back_holds_nothing_back_for_as_long():
    day = 24 * HOUR
    sent, more = alert(status="SENT", sent=NOON + day), alert(at=NOON)  # sent by a clock that ran a day ahead
    assert [len(message.alerts) for message in plan([sent, more], FOUR_HOURS, {}, NOON).messages] == [1]
    tried = replace(alert("other", at=NOON + day), attempts=3, next_attempt_at=NOON + day + HOUR)
    assert [len(message.alerts) for message in plan([tried], FOUR_HOURS, {}, NOON).messages] == [1]
    assert plan([replace(tried, next_attempt_at=NOON + 5 * HOUR)], FOUR_HOURS, {}, NOON).messages == []  # a pause like any


def test_the_end_is_told_at_once_but_not_of_what_nobody_knows():
    sent, more, over = alert(status="SENT", sent=NOON), alert(at=NOON + HOUR), alert(at=NOON + 2 * HOUR, recovery=True)
    planned = plan([sent, more, over], FOUR_HOURS, {}, NOON + 2 * HOUR)
    # What came of it in between has nothing to add.
    assert [[one.is_recovery for one in message.alerts] for message in planned.messages] == [[True]]
    assert [one.reason for one in planned.muted] == ["its beginning was reported, and it is over"]
    told = replace(over, status="SENT", sent_at=NOON + 2 * HOUR)
    again, over_again = alert(at=NOON + 2.5 * HOUR), alert(at=NOON + 3 * HOUR, recovery=True)
    assert plan([sent, told, again, over_again], FOUR_HOURS, {}, NOON + 3 * HOUR).messages == []
    later = plan([sent, told, again, over_again], FOUR_HOURS, {}, NOON + 4 * HOUR).messages
    assert [len(message.alerts) for message in later] == [2]
    # An end that nobody was told of is none to wait for: what came after it is told, and its own end.
    silenced = replace(over, status="MUTED")
    assert [len(message.alerts) for message in plan([sent, silenced, again, over_again], FOUR_HOURS, {}, NOON + 4 * HOUR).messages] == [2]
    # The end, and what began again after it.
    planned = plan([sent, over, alert(at=NOON + 3 * HOUR)], FOUR_HOURS, {}, NOON + 3 * HOUR)
    assert [[one.is_recovery for one in message.alerts] for message in planned.messages] == [[True]] and len(planned.held) == 1
    assert [one.status for one in plan([over], FOUR_HOURS, {}, NOON + 3 * HOUR).muted] == ["MUTED"]


def test_the_query_of_alerts_has_a_state_of_each_kind_that_ends():
    listed = query("alerts").split("anomaly_type IN (")[1].split(")")[0]
    assert {name.strip("' ") for name in listed.split(",")} == {name for name, kind in KINDS.items() if not kind.recovers}


def test_what_was_over_when_it_was_told_holds_nothing_back_that_goes_on():
    def long_ago(one):
        return replace(one, event_time=one.created_at - 48 * HOUR)

    over = long_ago(alert(status="SENT", sent=NOON))
    # Whether it goes on, or has no end, as a spike, but began lately.
    for fresh in (replace(long_ago(alert(at=NOON + HOUR)), is_ongoing=True), alert(at=NOON + HOUR)):
        assert len(plan([over, fresh], FOUR_HOURS, {}, NOON + HOUR).messages) == 1
        told = replace(fresh, status="SENT", sent_at=NOON + HOUR)
        for more in (alert(at=NOON + 2 * HOUR), long_ago(alert(at=NOON + 2 * HOUR))):
            assert len(plan([over, told, more], FOUR_HOURS, {}, NOON + 4.5 * HOUR).held) == 1
            assert len(plan([over, told, more], FOUR_HOURS, {}, NOON + 5 * HOUR).messages) == 1
    old = long_ago(alert(at=NOON + HOUR))
    assert len(plan([over, old], FOUR_HOURS, {}, NOON + HOUR).held) == 1
    # The end of something recent is nothing that came lately.
    known = replace(over, is_recovery=True)
    assert len(plan([over, known, old, alert(at=NOON + 1.5 * HOUR, recovery=True)], FOUR_HOURS, {}, NOON + 2 * HOUR).held) == 2


def test_a_silence_mutes_until_it_ends():
    planned = plan([alert(), alert("spike", kind="spike")], FOUR_HOURS, {"drift": NOON + HOUR}, NOON)
    assert [one.status for one in planned.muted] == ["MUTED"] and "until 2026-03-01 13:00" in planned.muted[0].reason
    assert [message.alerts[0].fingerprint for message in planned.messages] == ["spike"]


def test_what_may_have_arrived_stays_the_message_that_it_was():
    first = [alert("a"), alert("b")]
    begun = {"m1": [one.alert_id for one in first]}
    messages = plan([*first, alert("c", at=NOON + HOUR)], FOUR_HOURS, {"drift": NOON + 9 * HOUR}, NOON + HOUR, begun).messages
    assert [(message.message_id, len(message.alerts)) for message in messages] == [("m1", 2)]
    # The same alerts are the same message, whatever else comes and goes.
    once, again = (plan(first, FOUR_HOURS, {}, NOON + n * HOUR).messages[0].message_id for n in (0, 1))
    assert once == again


def test_what_may_have_arrived_keeps_its_pause_and_its_name_until_it_is_sent_or_given_up(tmp_path):
    [message] = plan([alert()], FOUR_HOURS, {}, NOON).messages
    unclear, clear = Temporary("went away", is_unclear=True), Temporary("cannot be reached", is_connection=True)
    journal = Journal(tmp_path / "sent")
    for failure in (unclear, clear, UsageError("SMTP_PASSWORD is wrong.")):
        run_delivery(tmp_path, [message], Script(failure))
        begun, _ = journal.read()
        assert begun == {message.message_id: [message.alerts[0].alert_id]}
    later = replace(alert(), next_attempt_at=NOON + HOUR)
    assert plan([later, alert("b")], FOUR_HOURS, {}, NOON, begun).messages[0].alerts == (alert("b"),)
    [again] = plan([later], FOUR_HOURS, {}, NOON + HOUR, begun).messages
    assert again.message_id == message.message_id
    tired = replace(again, alerts=(replace(later, attempts=MAX_ATTEMPTS - 1),))
    assert run_delivery(tmp_path, [tired], Script(unclear)).of("DEAD") and journal.read() == ({}, {})


def test_an_alert_that_is_tried_again_later_does_not_hold_up_others():
    tired = replace(alert("a"), attempts=19, next_attempt_at=NOON + 6 * HOUR)
    [message] = plan([tired, alert("b")], FOUR_HOURS, {}, NOON).messages
    assert [one.fingerprint for one in message.alerts] == ["b"]


class Script:
    """A sender that does as it is told, in turn."""

    def __init__(self, *answers):
        self.answers, self.sent = list(answers), []

    def __call__(self, message):
        self.sent.append(message.message_id)
        answer = self.answers.pop(0) if self.answers else None
        if isinstance(answer, BaseException):
            raise answer
        return answer


def run_delivery(tmp_path, messages, sender, outcome=None):
    """One run that waits for nobody."""
    outcome = outcome or Outcome()
    deliver(messages, {"email": sender}, Journal(tmp_path / "sent"), outcome, timedelta())
    return outcome


def test_a_temporary_failure_is_tried_again_later_and_given_up_in_the_end(tmp_path):
    one, pauses = alert(), []
    for attempt in range(1, MAX_ATTEMPTS + 1):
        [message] = plan([one], FOUR_HOURS, {}, NOON).messages
        outcome = run_delivery(tmp_path, [message], Script(Temporary("the server says 451 later")))
        [after] = outcome.alerts.values()
        assert after.attempts == attempt
        pauses.append((after.next_attempt_at - datetime.now(UTC)).total_seconds())
        one = replace(after, next_attempt_at=NOON)
    assert after.status == "DEAD" and "given up after 20 attempts: the server says 451 later" in after.reason
    for n, pause in enumerate(pauses[:-1]):
        assert 0.5 * min(5 * 2**n, 6 * 3600) - 1 <= pause <= 1.5 * min(5 * 2**n, 6 * 3600)


def test_a_new_alert_does_not_die_with_an_old_one_that_it_goes_with(tmp_path):
    [message] = plan([replace(alert("a"), attempts=19), alert("b")], FOUR_HOURS, {}, NOON).messages
    outcome = run_delivery(tmp_path, [message], Script(Temporary("451")))
    assert [(one.status, one.attempts) for one in outcome.alerts.values()] == [("DEAD", 20), ("PENDING", 1)]


def test_a_refusal_is_final_and_a_wrong_setting_touches_nothing(tmp_path):
    messages = plan([alert("a"), alert("b"), alert("c")], replace(FOUR_HOURS, group=False), {}, NOON).messages
    outcome = run_delivery(tmp_path, messages, Script(Refused("the server says 554 no")))
    assert [(one.status, one.reason) for one in outcome.of("DEAD")] == [("DEAD", "the server says 554 no")]
    assert len(outcome.of("SENT")) == 2
    script = Script(UsageError("SMTP_PASSWORD is wrong."))
    outcome = run_delivery(tmp_path, messages, script)
    assert outcome.alerts == {} and len(script.sent) == 1
    assert str(outcome.wrong["email"]) == "SMTP_PASSWORD is wrong."


def test_a_server_that_is_away_is_not_asked_for_each_alert(tmp_path):
    messages = plan([alert(f"a{n}") for n in range(100)], replace(FOUR_HOURS, group=False), {}, NOON).messages
    away = Script(*[Temporary("cannot be reached", is_connection=True)] * 100)
    outcome = run_delivery(tmp_path, messages, away)
    assert len(away.sent) == 3 and len(outcome.alerts) == 3


def test_the_journal_tells_what_may_have_arrived_and_what_has(tmp_path):
    messages = plan([alert("a"), alert("b"), alert("c")], replace(FOUR_HOURS, group=False), {}, NOON).messages
    ids = [message.message_id for message in messages]
    run_delivery(tmp_path, messages, Script(Temporary("451"), Temporary("went away", is_unclear=True)))
    begun, sent = Journal(tmp_path / "sent").read()
    assert (list(begun), list(sent)) == ([ids[1]], [ids[2]])
    # Killed while it handed one over, and while it wrote that down.
    with pytest.raises(KeyboardInterrupt):
        run_delivery(tmp_path, [messages[0]], Script(KeyboardInterrupt()))
    (tmp_path / "sent" / "half.begun").write_text('["x')
    assert set(Journal(tmp_path / "sent").read()[0]) == set(ids[:2])


@pytest.mark.parametrize("content", [b"", b"5", b"{", b'{"a": 1}', b"[1]", b"\xff\x00\x9d", b"[" * 100_000, b"9" * 5_000, None])
@pytest.mark.parametrize("kind", ["begun", "sent"])
def test_a_damaged_file_of_the_journal_is_set_aside_and_said_and_the_others_count(tmp_path, content, kind):
    folder = tmp_path / "sent"
    run_delivery(tmp_path, [delivery.Message("m1", "email", (), (alert("a"),), NOON)], Script(Temporary("?", is_unclear=True)))
    bad = folder / f"abc.{kind}"
    bad.write_bytes(content) if content is not None else bad.mkdir()
    journal = Journal(folder)
    assert journal.read() == ({"m1": [alert("a").alert_id]}, {})
    is_left_over = kind == "sent" and content == b""  # of a sender killed while it took the message out of the journal
    assert journal.damaged == ([] if is_left_over else journal.damaged[:1]) and not bad.exists()
    assert is_left_over or (f"abc.{kind}" in journal.damaged[0] and (folder / f"abc.{kind}.damaged").exists())
    again = Journal(folder)
    assert (again.read()[0], again.damaged) == ({"m1": [alert("a").alert_id]}, [])


def test_of_a_message_that_was_sent_one_of_its_two_files_is_enough(tmp_path):
    messages = plan([alert("a"), alert("b")], replace(FOUR_HOURS, group=False), {}, NOON).messages
    run_delivery(tmp_path, messages, Script())
    first, second = (message.message_id for message in messages)
    (tmp_path / "sent" / f"{first}.begun").write_text("5")
    (tmp_path / "sent" / f"{second}.sent").write_text("")
    journal = Journal(tmp_path / "sent")
    assert journal.read() == ({}, {first: [alert("a").alert_id], second: [alert("b").alert_id]})


@pytest.mark.parametrize("name", ["a b", "a\nBcc: x@y.z", "x" * 70])
def test_a_file_of_the_journal_whose_name_is_no_messages_makes_no_header(tmp_path, name):
    (tmp_path / f"{name}.begun").write_text(json.dumps([alert("a").alert_id]))
    journal = Journal(tmp_path)
    assert journal.read() == ({}, {})
    assert "its name is no message's" in journal.damaged[0] and journal.damaged[0].isprintable()


def test_a_folder_that_cannot_be_written_keeps_no_mail_back(tmp_path):
    (tmp_path / "sent").write_text("a file")
    messages = plan([alert()], FOUR_HOURS, {}, NOON).messages
    journal, outcome = Journal(tmp_path / "sent"), Outcome()
    deliver(messages, {"email": Script()}, journal, outcome, timedelta())
    assert len(outcome.of("SENT")) == 1 and "cannot be written" in journal.fault


def test_what_nobody_foresaw_in_one_channel_keeps_nothing_from_the_other(tmp_path):
    every = [alert(), alert("other"), alert(channel="webhook")]
    messages = plan(every, replace(FOUR_HOURS, group=False), {}, NOON).messages
    outcome = Outcome()
    senders = {"email": Script(UnicodeError("s3cret")), "webhook": Script()}
    deliver(messages, senders, Journal(tmp_path / "sent"), outcome, timedelta())
    assert sorted(one.channel for one in outcome.of("SENT")) == ["email", "webhook"]
    [failed] = outcome.of("PENDING")
    assert (failed.attempts, failed.reason) == (1, "it could not be sent (UnicodeError)")
    assert outcome.wrong == {"email": "The channel email cannot be used (UnicodeError): check its settings."}


def test_hundreds_of_looks_and_a_bad_server_lose_nothing_and_repeat_nothing(tmp_path):
    """Whatever happens: each alert ends as told, muted or refused, each is in one mail, and an end is told of what was told alone."""
    rng = random.Random(5)
    rules = parse_rules("rules:\n  - {name: drift, finding: drift, cooldown: 5h}\n  - {name: spike, finding: spike}")
    held: dict[str, Alert] = {}
    mails: Counter[str] = Counter()
    ids_of = {}

    def send(message):
        chance = rng.random()
        if chance < 0.3:
            raise Temporary("451 later")
        if chance < 0.4:
            raise Refused("554 no")
        mails.update(one.alert_id for one in message.alerts)
        ids_of[message.message_id] = message.alerts
        return None

    for number in range(1, 301):
        now, columns = NOON + number * HOUR, [f"c{n}" for n in range(6)]
        found = [finding("drift", column, number=number) for column in columns if rng.random() < 0.3]
        found += [finding("spike", "arrivals", number=number)] if rng.random() < 0.1 else []
        judged = [("drift", column) for column in columns if rng.random() < 0.9]
        known = sorted(held.values(), key=outbox._order)
        new = derived([(look(number, *judged), found)], rules, known, run=f"r{number}", now=now)
        silenced = {"drift": now + HOUR} if 100 < number < 130 else {}
        planned = plan([*known, *new], rules, silenced, now)
        outcome = Outcome()
        deliver(planned.messages, {"email": send}, Journal(tmp_path / "sent"), outcome, timedelta())
        changed = {one.alert_id: one for one in (*planned.muted, *planned.held)}
        for one in (*known, *new):
            after = outcome.alerts.get(one.alert_id, changed.get(one.alert_id, one))
            # The clock of the delivery is the real one.
            sent_at = now if after.status == "SENT" and one.status != "SENT" else one.sent_at
            held[one.alert_id] = replace(after, sent_at=sent_at, next_attempt_at=min(after.next_attempt_at, now))
    assert len(held) > 300 and set(mails.values()) == {1}
    assert {one.alert_id for one in held.values() if one.status == "SENT"} == set(mails)
    assert all(one.reason for one in held.values() if one.status in ("MUTED", "DEAD"))
    assert not [one for one in held.values() if one.status == "PENDING" and one.created_at < NOON + 290 * HOUR]
    told: dict[str, bool] = {}
    for one in sorted((one for one in held.values() if one.status == "SENT"), key=outbox._order):
        if one.is_recovery:
            assert told.pop(one.fingerprint, False), one
        elif one.is_ongoing:
            told[one.fingerprint] = True


# ------------------------------------------------------------------------------------------------------------------- what they say


def test_a_mail_says_all_in_text_and_html_and_takes_no_orders_from_payloads():
    evil = "x'\r\nBcc: a@b.c <script>alert(1)</script> OR 1=1"
    one = replace(alert(), subject=evil, message="psi is 0.5 <b>", severity="critical", query="SELECT 1 FROM t WHERE a = 'x'", link="https://w/jobs/1/runs/2",
                  observed=0.5, threshold=0.1, table_name="silver_events")  # fmt: skip
    mail = compose("m1", [one, alert("over", recovery=True)], "from@example.com", ["to@example.com"], "streaming")
    mail = BytesParser(policy=default).parsebytes(mail.as_bytes())
    assert mail["Bcc"] is None and mail["Message-ID"] == "<m1@streaming-pipeline.invalid>" and mail["Auto-Submitted"] == "auto-generated"
    assert mail["Subject"].startswith(r"[CRITICAL] streaming: drift: x'\r\nBcc: a@b.c") and "over: drift" in mail["Subject"]
    text, page = (mail.get_body((kind,)).get_content() for kind in ("plain", "html"))
    for said in ("drift", "critical", "2026-03-01 12:00:00 UTC", "silver_events", "0.5", "0.1", "https://w/jobs/1/runs/2", "RECOVERED"):
        assert said in text and said in page
    assert "SELECT 1 FROM t WHERE a = 'x'" in text
    assert "<script>" not in page and "<b>" not in page and "psi is 0.5 &lt;b&gt;" in page
    assert [part.get_content_type() for part in mail.iter_parts()] == ["text/plain", "text/html"]


@pytest.mark.parametrize(
    "mark", ["\r\n", "\n", "\r", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\x00", "\ud800", "=?utf-8?q?a=0d=0aBcc=3a_x=40y.z=0d=0a?= "]
)
def test_no_name_from_payloads_or_tables_makes_a_header_or_stops_a_mail(mark):
    evil = f"x{mark}Bcc: evil@example.com{mark}{mark}body " + "long " * 300
    for field in ("subject", "anomaly_type", "message", "rule", "query", "link", "table_name", "metric"):
        mail = compose("m1", [replace(alert(), **{field: evil})], "from@example.com", ["to@example.com"], "streaming")
        names = BytesParser(policy=default).parsebytes(mail.as_bytes(policy=SMTP)).keys()
        headers = ["Subject", "From", "To", "Date", "Message-ID", "Auto-Submitted", "MIME-Version", "Content-Type"]
        assert names == headers, field


def test_a_storm_of_thousands_is_a_mail_that_can_be_sent():
    storm = [replace(alert(f"a{n}"), subject=f"column {n}") for n in range(3_000)]
    mail = compose("m", storm, "from@example.com", ["to@example.com"], "streaming")
    text = mail.get_body(("plain",)).get_content()
    assert len(mail.as_bytes()) < 200_000
    assert (text.count("Rule: drift"), text.count("WARNING: drift: column")) == (MOST_WHOLE, MOST_WHOLE + 200)
    assert f"and {3_000 - MOST_WHOLE - 200:,} more" in text


# ------------------------------------------------------------------------------------------------------------ real servers


class Flaky:
    """A mail server's handler that answers as it is told, in turn, then as it should."""

    def __init__(self, *answers):
        self.answers, self.taken = list(answers), []

    async def handle_RCPT(self, server, session, envelope, address, options):
        if self.answers and isinstance(self.answers[0], dict):
            said = self.answers[0].pop(address, None)
            if not self.answers[0]:
                self.answers.pop(0)
            if said:
                return said
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        answer = self.answers.pop(0) if self.answers else "250 taken"
        if answer == "hang up":
            server.transport.close()
            return "250 never read"
        if answer.startswith("250"):
            self.taken.append(envelope.rcpt_tos)
        return answer


@contextmanager
def mail_server(certificates, tmp_path, *answers, speaks="STARTTLS", **changes):
    handler = Flaky(*answers)
    with running_mailbox(certificates, tmp_path / "mail", security=speaks, handler=handler) as (_, secrets):
        settings = replace(SmtpSettings.from_secrets(secrets), **changes)
        with MailServer(settings, 5) as server:
            yield handler, server


def hand_over(server, *recipients):
    recipients = recipients or ("a@example.com",)
    return server.send(compose("m1", [alert()], "from@example.com", recipients, "streaming"), recipients)


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


def test_a_server_without_tls_gets_no_mail(tmp_path):
    from aiosmtpd.controller import Controller

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    controller = Controller(Flaky(), "127.0.0.1", port)
    controller.start()
    try:
        settings = SmtpSettings("127.0.0.1", port, "STARTTLS", "from@example.com", ("to@example.com",))
        with MailServer(settings, 5) as server, pytest.raises(UsageError, match="Mails go over TLS"):
            hand_over(server)
    finally:
        controller.stop()
    with MailServer(settings, 5) as server, pytest.raises(Temporary, match="cannot be reached"):
        hand_over(server)


GOOD = {"SMTP_HOST": "mail.example.com", "SMTP_FROM": "from@example.com", "SMTP_TO": "a@example.com, b@example.com"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"SMTP_HOST": ""}, "SMTP_HOST is not set, but SMTP_FROM, SMTP_TO"),
        ({"SMTP_FROM": " "}, "SMTP_FROM is not set"),
        ({"SMTP_FROM": "nobody"}, "SMTP_FROM: 'nobody' is not an e-mail address"),
        ({"SMTP_TO": "a@example.com; b@example.com"}, "SMTP_TO: 'a@example.com; b@example.com' is not"),
        ({"SMTP_PORT": "smtp"}, "SMTP_PORT 'smtp' is not a port"),
        ({"SMTP_PORT": "0"}, "SMTP_PORT '0' is not a port"),
        ({"SMTP_PORT": "9" * 5000}, "is not a port"),
        ({"SMTP_HOST": "mail..example.com"}, "SMTP_HOST 'mail..example.com' is not a host name"),
        ({"SMTP_USERNAME": "me", "SMTP_PASSWORD": "secret-ü"}, "SMTP_PASSWORD holds letters"),
        ({"SMTP_SECURITY": "none"}, "SMTP_SECURITY 'none' is not known: give STARTTLS or TLS"),
        ({"SMTP_USERNAME": "me"}, "SMTP_PASSWORD is not set"),
        ({"SMTP_PASSWORD": "secret"}, "SMTP_USERNAME is not set"),
    ],
)
def test_a_mail_setting_that_cannot_be_is_named(changes, said):
    with pytest.raises(UsageError, match=said) as caught:
        SmtpSettings.from_secrets({**GOOD, **changes})
    assert "secret" not in str(caught.value)


def test_mail_settings_have_the_usual_defaults():
    settings = SmtpSettings.from_secrets(GOOD)
    assert (settings.port, settings.security, settings.recipients) == (587, "STARTTLS", ("a@example.com", "b@example.com"))
    assert SmtpSettings.from_secrets({**GOOD, "SMTP_PORT": "465"}).security == "TLS"
    assert SmtpSettings.from_secrets({}) is SmtpSettings.from_secrets({"SMTP_HOST": ""}) is None


@contextmanager
def web_server(*codes):
    """A server that answers with these codes in turn, then with 200; yields its address and the bodies that it got."""
    waiting, bodies = list(codes), []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            code = waiting.pop(0) if waiting else 200
            self.send_response(code)
            if code == 302:
                self.send_header("Location", "http://127.0.0.1:1/")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/hook/s3cret", bodies
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_webhook_gets_json_as_slack_takes_it():
    with web_server(503, 429, 400, 302, 404) as (url, bodies):
        for wanted in (Temporary, Temporary, Refused, UsageError, UsageError):
            with pytest.raises(wanted) as caught:
                post(url, "x")
            assert "s3cret" not in str(caught.value)
        post(check_url(url), webhook_text([replace(alert(), subject="a<b", link="https://w/run")], "streaming"))
    assert bodies[-1]["text"].splitlines()[0] == "*[WARNING] streaming: drift: a&lt;b (over when found)*"
    assert "<https://w/run|the run>" in bodies[-1]["text"]
    with pytest.raises(Temporary, match="cannot be reached"):
        post(url, "x")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "hook",
        "http://example.com/s3cret",
        "https://",
        "https://a b/s3cret",
        "ftp://localhost/s3cret",
        "https://a..b/s3cret",
        "https://u:s3cret@b.c/",
    ],
)
def test_a_webhook_that_is_no_url_is_named_without_its_text(url):
    with pytest.raises(UsageError, match="ALERT_WEBHOOK_URL is not a URL that begins with https") as caught:
        check_url(url)
    assert "s3cret" not in str(caught.value)


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


def test_the_link_leads_to_the_run(offline_settings, tmp_path):
    settings = replace(offline_settings, run_id="77")
    link = "https://adb.example.net/jobs/5/runs/77"
    assert run_link(settings, "https://adb.example.net", "5") == run_link(settings, "adb.example.net", "5") == link
    assert run_link(settings, "", "x") == (tmp_path / "runs" / "77" / "index.html").as_uri()


def test_a_silence_names_a_rule_and_a_time(spark, offline_settings):
    with pytest.raises(UsageError, match=r"'rule' is 'drfit': there is no such rule. Rules: job_failed"):
        silence(spark, offline_settings, "drfit", HOUR)
    for text in ("", "4", "four hours", "40d", "-1h"):
        with pytest.raises(UsageError, match="Parameter 'duration'"):
            parse_for(text)
