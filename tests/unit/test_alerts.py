"""Alerts: which there are, when they are sent, and that none is lost or told twice."""

import json
import random
import socket
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.parser import BytesParser
from email.policy import SMTP, default
from pathlib import Path

import pandas as pd
import pytest
from alert_cases import FOUR_HOURS, HOUR, NOON, Flaky, alert, hand_over, look, plan, run_delivery, web_server
from pyspark.sql import Row

from streaming_pipeline.alerts import deliver as delivery
from streaming_pipeline.alerts import findings, outbox
from streaming_pipeline.alerts.deliver import MAX_ATTEMPTS, Journal, Outcome, Refused, Temporary, deliver
from streaming_pipeline.alerts.derive import Occasion, derive
from streaming_pipeline.alerts.findings import KINDS, Finding, Look
from streaming_pipeline.alerts.mail import MOST_WHOLE, compose, webhook_text
from streaming_pipeline.alerts.outbox import Alert
from streaming_pipeline.alerts.rules import Rule, Rules, load_rules, parse_rules
from streaming_pipeline.alerts.send import run_link
from streaming_pipeline.alerts.smtp import MailServer, SmtpSettings
from streaming_pipeline.alerts.webhook import check_url, post
from streaming_pipeline.core import tables
from streaming_pipeline.core.errors import UsageError
from streaming_pipeline.core.settings import Settings
from streaming_pipeline.queries import query

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "config" / "alert_rules.yml"


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


def test_the_link_leads_to_the_run(offline_settings, tmp_path):
    settings = replace(offline_settings, run_id="77")
    link = "https://adb.example.net/jobs/5/runs/77"
    assert run_link(settings, "https://adb.example.net", "5") == run_link(settings, "adb.example.net", "5") == link
    assert run_link(settings, "", "x") == (tmp_path / "runs" / "77" / "index.html").as_uri()
