"""Findings → alerts, by the rules; and what is over. Pure: the tables are read and written elsewhere."""

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from streaming_pipeline.alerts.findings import KINDS, Finding, Look
from streaming_pipeline.alerts.outbox import Alert
from streaming_pipeline.alerts.rules import Rules
from streaming_pipeline.core.foreign_text import NAME, harmless

_BREAKS = ("schema_removed", "schema_retyped")
_SHORT = timedelta(hours=1)
"""A schema break lasts so long at least."""


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
    """The alerts that looks, oldest first, and the end of a run give rise to, without those that are `known` (oldest first, too).

    `failure` is the finding that the run failed; `has_run_well` says that it is known to have gone well.
    """
    out: list[Alert] = []
    for look, findings in looks:
        breaks = [*_breaks(findings), *_broken([*known, *out])]
        found = [alert for finding in _told(findings, rules) for alert in _alerts(finding, look, breaks, rules, occasion)]
        # Whether a rule wants to hear of it or not: what goes on is not over.
        goes_on = {_fingerprint(finding) for finding in findings if _is_ongoing(finding, look)}
        out += [*found, *_recoveries(look, goes_on, [*known, *out], rules, occasion)]
    if failure:
        out += _alerts(failure, None, [], rules, occasion)
    if has_run_well:
        over = (alert for alert in still_open([*known, *out]) if alert.anomaly_type == "job_failed")
        out += [_recovery(alert, f"Run {occasion.run_id} succeeded.", None, rules, occasion) for alert in over]
    held = {alert.alert_id for alert in known}
    return [alert for alert in out if alert.alert_id not in held]


def _told(findings: Sequence[Finding], rules: Rules) -> list[Finding]:
    """The findings without those that another one explains: where every record was rejected, each field is missing, or is new, and no
    event is."""
    every = (finding for finding in findings if finding.kind == "records_rejected" and finding.observed == 100)
    if not any(rules.for_finding(finding.kind, finding.subject, finding.severity) for finding in every):
        return list(findings)
    return [finding for finding in findings if finding.kind not in ("schema_change", "stale")]


def _alerts(finding: Finding, look: Look | None, breaks: Sequence["Break"], rules: Rules, occasion: Occasion) -> list[Alert]:
    """One alert a channel, if a rule fits."""
    rule = rules.for_finding(finding.kind, finding.subject, finding.severity)
    if rule is None:
        return []
    fingerprint = _fingerprint(finding)
    came = look.run_time.isoformat() if look else occasion.run_id
    muted_by = _cause(finding, breaks)
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


def _fingerprint(finding: Finding) -> str:
    return "/".join(filter(None, (finding.kind, finding.table_name, finding.subject)))


def _is_ongoing(finding: Finding, look: Look | None) -> bool:
    is_state = KINDS[finding.kind].recovers and not (look and look.number is None)  # a loss that was accepted is none
    return is_state and finding.is_ongoing


@dataclass(frozen=True)
class Break:
    """A field that is missing, or of another type, from a time on."""

    what: str
    began: datetime
    ended: datetime


def _breaks(findings: Iterable[Finding]) -> list[Break]:
    """The schema breaks of a look."""
    broken = (finding for finding in findings if finding.kind == "schema_change" and finding.metric in _BREAKS and finding.began)
    return [Break(f"{finding.metric} of {harmless(finding.subject, NAME)}", finding.began, finding.ended) for finding in broken]


def _broken(alerts: Iterable[Alert]) -> list[Break]:
    """The schema breaks of earlier looks, of which the begin is known: scores of a day are judged when it is over."""
    broken = (alert for alert in alerts if alert.anomaly_type == "schema_change" and alert.metric in _BREAKS)
    return [Break(f"{alert.metric} of {harmless(alert.subject, NAME)}", alert.event_time, alert.event_time + _SHORT) for alert in broken]


def _cause(finding: Finding, breaks: Iterable[Break]) -> str | None:
    """The schema break that a drift comes from: events that are rejected for a field leave others, and others' values, behind."""
    if finding.kind not in ("drift", "concept_drift"):
        return None
    causes = (one.what for one in breaks if finding.began and finding.began < one.ended and finding.ended > one.began)
    return next((f"caused by {what} at the same time" for what in causes), None)


def still_open(alerts: Iterable[Alert]) -> list[Alert]:
    """Of each fingerprint and channel the newest alert that went on and was or will be told, if nothing was told of its end since."""
    found: dict[tuple[str, str], Alert] = {}
    for alert in alerts:
        key = (alert.fingerprint, alert.channel)
        if alert.is_recovery:
            found.pop(key, None)
        elif alert.is_ongoing and alert.status in ("PENDING", "SENT"):
            found[key] = alert
    return list(found.values())


def _recoveries(look: Look, goes_on: Collection[str], earlier: Iterable[Alert], rules: Rules, occasion: Occasion) -> list[Alert]:
    """What was found by an earlier look, was judged again by this one, and does not go on."""
    out = []
    for alert in still_open(earlier):
        judged = {(alert.anomaly_type, alert.subject), (alert.anomaly_type, "*")} & look.judged
        if judged and alert.fingerprint not in goes_on and alert.found_at and alert.found_at < look.run_time:
            text = f"This is over. It began {alert.event_time:%Y-%m-%d %H:%M} UTC and was reported as: {alert.message}"
            out.append(_recovery(alert, text, look, rules, occasion))
    return out


def _recovery(alert: Alert, text: str, look: Look | None, rules: Rules, occasion: Occasion) -> Alert:
    """The alert that another one is over; it goes to whom the rule names, wherever the other has got to."""
    came = look.run_time.isoformat() if look else occasion.run_id
    recipients = next((rule.recipients for rule in rules.rules if rule.name == alert.rule and alert.channel == "email"), alert.recipients)
    return replace(
        alert,
        alert_id=_id(alert.fingerprint, came, alert.channel, "over"),
        severity="info",
        message=text,
        status="PENDING",
        attempts=0,
        recipients=recipients,
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
