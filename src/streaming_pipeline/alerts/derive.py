"""Findings → alerts, by the rules; and what is over. Pure: the tables are read and written elsewhere."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from streaming_pipeline.alerts.findings import KINDS, Finding, Look, shown
from streaming_pipeline.alerts.outbox import Alert
from streaming_pipeline.alerts.rules import Rules

_BREAKS = ("schema_removed", "schema_retyped")
_STILL = timedelta(hours=2)
"""What ended so long before the newest event is over already; nobody waits to hear of its end."""


@dataclass(frozen=True)
class Occasion:
    """On what occasion alerts are derived: the run, its link, the channels that are set up, and now."""

    run_id: str
    link: str
    channels: tuple[str, ...]
    now: datetime


def derive(
    looks: Sequence[tuple[Look, Sequence[Finding]]],
    failure: Finding | None,
    has_run_well: bool,
    rules: Rules,
    known: Sequence[Alert],
    occasion: Occasion,
) -> list[Alert]:
    """The alerts that looks, oldest first, and the end of a run give rise to, without those that are `known`.

    `failure` is the finding that the run failed; `has_run_well` says that it is known to have gone well.
    """
    out: list[Alert] = []
    for look, findings in looks:
        found = [alert for finding in findings for alert in _alerts(finding, look, findings, rules, occasion)]
        out += [*found, *_recoveries(look, found, [*known, *out], occasion)]
    if failure:
        out += _alerts(failure, None, (), rules, occasion)
    if has_run_well:
        over = (alert for alert in still_open([*known, *out]) if alert.anomaly_type == "job_failed")
        out += [_recovery(alert, f"Run {occasion.run_id} went well.", None, occasion) for alert in over]
    held = {alert.alert_id for alert in known}
    return [alert for alert in out if alert.alert_id not in held]


def _alerts(finding: Finding, look: Look | None, others: Iterable[Finding], rules: Rules, occasion: Occasion) -> list[Alert]:
    """One alert a channel, if a rule fits."""
    rule = rules.for_finding(finding.kind, finding.subject, finding.severity)
    if rule is None:
        return []
    fingerprint = "/".join(filter(None, (finding.kind, finding.table_name, finding.subject)))
    came = look.run_time.isoformat() if look else occasion.run_id
    muted_by = _cause(finding, others)
    out = []
    for channel in rule.channels or occasion.channels or ("email",):
        alert = Alert(
            alert_id=_id(fingerprint, came, channel),
            fingerprint=fingerprint,
            anomaly_type=finding.kind,
            severity=rule.severity or finding.severity,
            event_time=finding.began or occasion.now,
            message=finding.text,
            next_attempt_at=occasion.now,
            created_at=occasion.now,
            run_id=occasion.run_id,
            rule=rule.name,
            channel=channel,
            recipients=rule.recipients if channel == "email" else (),
            table_name=finding.table_name,
            subject=finding.subject,
            findings=finding.count,
            metric=finding.metric,
            observed=finding.observed,
            expected=finding.expected,
            score=finding.score,
            threshold=finding.threshold,
            query=finding.query,
            link=occasion.link,
            found_at=look.run_time if look else None,
            is_ongoing=_is_ongoing(finding, look),
        )
        out.append(alert.muted(muted_by) if muted_by else alert)
    return out


def _is_ongoing(finding: Finding, look: Look | None) -> bool:
    if not KINDS[finding.kind].recovers:
        return False
    if finding.ended is None or look is None:
        return not (look and look.number is None)  # a loss that was accepted is no state
    return look.latest_event_time is None or finding.ended + _STILL >= look.latest_event_time


def _cause(finding: Finding, others: Iterable[Finding]) -> str | None:
    """The schema break that a drift comes from: events that are rejected for a field leave others, and others' values, behind."""
    if finding.kind not in ("drift", "concept_drift"):
        return None
    for other in others:
        is_break = other.kind == "schema_change" and other.metric in _BREAKS
        if is_break and finding.began < other.ended and finding.ended > other.began:
            return f"{other.metric} of {shown(other.subject)} in the same windows causes it"
    return None


def still_open(alerts: Iterable[Alert]) -> list[Alert]:
    """The newest alert of each fingerprint and channel that was to be told, and of whose end nothing was told yet."""
    newest: dict[tuple[str, str], Alert] = {}
    for alert in alerts:
        if alert.status != "MUTED" or alert.is_recovery:
            newest[alert.fingerprint, alert.channel] = alert
    return [alert for alert in newest.values() if alert.is_ongoing and not alert.is_recovery]


def _recoveries(look: Look, found: Sequence[Alert], earlier: Iterable[Alert], occasion: Occasion) -> list[Alert]:
    """What was found by an earlier look, judged again by this one, and not found."""
    again = {alert.fingerprint for alert in found}
    out = []
    for alert in still_open(earlier):
        judged = {(alert.anomaly_type, alert.subject), (alert.anomaly_type, "*")} & look.judged
        if judged and alert.fingerprint not in again and alert.found_at and alert.found_at < look.run_time:
            out.append(_recovery(alert, f"It began {alert.event_time:%Y-%m-%d %H:%M} UTC: {alert.message}", look, occasion))
    return out


def _recovery(alert: Alert, text: str, look: Look | None, occasion: Occasion) -> Alert:
    """The alert that another one is over."""
    came = look.run_time.isoformat() if look else occasion.run_id
    return replace(
        alert,
        alert_id=_id(alert.fingerprint, came, alert.channel, "over"),
        severity="info",
        message=text,
        status="PENDING",
        attempts=0,
        next_attempt_at=occasion.now,
        sent_at=None,
        created_at=occasion.now,
        run_id=occasion.run_id,
        link=occasion.link,
        found_at=look.run_time if look else None,
        is_recovery=True,
        is_ongoing=False,
        message_id=None,
        reason=None,
    )


def _id(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
