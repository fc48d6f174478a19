"""What a message says: alerts → an e-mail in text and HTML, or the text for a webhook. Pure."""

import html
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from email.message import EmailMessage

from streaming_pipeline.alerts.findings import KINDS, SEVERITIES, advice
from streaming_pipeline.alerts.outbox import Alert
from streaming_pipeline.alerts.webhook import escaped
from streaming_pipeline.core.foreign_text import NAME, harmless
from streaming_pipeline.core.wording import plural

MOST_WHOLE = 20
"""So many alerts are shown whole in one message, the most severe first; of the others it has a line."""
MOST_LINES = 200
_FOOT = (
    "The table alert_outbox has every alert, docs/runbook.md more on each kind; streaming-pipeline silence RULE --for 4h silences a rule."
)
_DOMAIN = "streaming-pipeline.invalid"  # a name that nobody has: RFC 2606
_COLOUR = {"critical": "#b3261e", "warning": "#8a5a00", "info": "#1f5f99", "over": "#1b6e3c"}


def compose(message_id: str, alerts: Sequence[Alert], sender: str, recipients: Sequence[str], schema: str) -> EmailMessage:
    """The mail that tells of these alerts. The same alerts have the same Message-ID each time; `schema` names the pipeline."""
    alerts = _ordered(alerts)
    mail = EmailMessage()
    mail["Subject"] = _header(_subject(alerts, schema))
    mail["From"] = sender
    mail["To"] = ", ".join(recipients)
    mail["Date"] = datetime.now(UTC)
    mail["Message-ID"] = f"<{message_id}@{_DOMAIN}>"
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(_unicode(_text_body(alerts)), cte="quoted-printable")
    mail.add_alternative(_unicode(_html_body(alerts, schema)), subtype="html", cte="quoted-printable")
    return mail


def _header(text: str) -> str:
    """A header of words that may come from payloads: one line, and no encoded words, since Python would decode `=?utf-8?q?=0ABcc:…?=`
    and write it out as two headers."""
    line = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(line.split()).replace("=?", "= ?")


def _unicode(text: str) -> str:
    """The text without halves of surrogate pairs, as paths may have them; no mail can hold these."""
    return text.encode(errors="replace").decode()


def _ordered(alerts: Sequence[Alert]) -> list[Alert]:
    """The most severe first, what is over last, else as they began. Of several about the same the newest, which says so."""
    newest: dict[tuple[str, bool], Alert] = {}
    earlier: dict[tuple[str, bool], list[Alert]] = {}
    for alert in sorted(map(_harmless, alerts), key=lambda alert: (alert.created_at, alert.event_time)):
        key = (alert.fingerprint, alert.is_recovery)
        if key in newest:
            earlier.setdefault(key, []).append(newest[key])
        newest[key] = alert
    for key, before in earlier.items():
        times = "once" if len(before) == 1 else plural(len(before), "time")
        since = min(alert.event_time for alert in before).astimezone(UTC)
        newest[key] = replace(newest[key], message=f"{newest[key].message} Found {times} before, since {since:%Y-%m-%d %H:%M} UTC.")
    return sorted(
        newest.values(),
        key=lambda alert: (alert.is_recovery, -SEVERITIES.index(alert.severity), alert.event_time, alert.fingerprint),
    )


def _harmless(alert: Alert) -> Alert:
    """The alert with nothing of records in it that a mail program or a chat would take for more than text."""
    return replace(alert, **{name: harmless(getattr(alert, name)) for name in ("message", "table_name", "subject", "metric", "query")})


def _subject(alerts: Sequence[Alert], schema: str) -> str:
    """One line: the highest severity, and what it is about."""
    titles = list(dict.fromkeys(_headline(alert) for alert in alerts))
    rest = f"; {len(titles) - 3} more" if len(titles) > 3 else ""
    return f"[{_word(alerts[0])}] {schema}: {'; '.join(titles[:3])}{rest}"


def title(alert: Alert) -> str:
    """What an alert is about, in a few words."""
    kind = KINDS[alert.anomaly_type].title if alert.anomaly_type in KINDS else alert.anomaly_type
    about = f": {harmless(alert.subject, NAME)}" if alert.subject else ""
    return f"{'over: ' if alert.is_recovery else ''}{kind}{about}"


def _headline(alert: Alert) -> str:
    """The same, and whether it was over when it was found."""
    return f"{title(alert)}{' (over when found)' if _was_over(alert) else ''}"


def _facts(alert: Alert) -> list[tuple[str, str]]:
    """Name and value of what is worth knowing, in order; what an alert lacks is left out."""
    time = f"{alert.event_time.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
    pairs = (
        ("Type", alert.anomaly_type),
        ("Severity", alert.severity),
        ("Event time", time),
        ("Table", alert.table_name),
        ("Measure", alert.metric),
        ("Observed", _number(alert.observed)),
        ("Usual", _number(alert.expected)),
        ("Score", _number(alert.score)),
        ("Threshold", "" if alert.threshold is None else f"{_number(alert.threshold)} (from here on it is a finding)"),
        ("Rows", f"{alert.findings:,}"),
        ("State", _state(alert)),
        ("Next", "" if alert.is_recovery else advice(alert.anomaly_type, not alert.is_ongoing)),
        ("Query", alert.query),
        ("Run", alert.link or alert.run_id),
        ("Rule", alert.rule),
    )
    return [(name, value) for name, value in pairs if value]


def _state(alert: Alert) -> str:
    """Whether it goes on, of what can end."""
    if _was_over(alert):
        return "it was over when monitoring found it"
    return "still going on; a message will say when it is over" if alert.is_ongoing else ""


def _was_over(alert: Alert) -> bool:
    can_end = alert.anomaly_type in KINDS and KINDS[alert.anomaly_type].recovers and alert.anomaly_type != "records_lost"  # accepted
    return can_end and not alert.is_ongoing and not alert.is_recovery


def _text_body(alerts: Sequence[Alert]) -> str:
    """The text part."""
    parts = []
    for alert in alerts[:MOST_WHOLE]:
        lines = [f"{_word(alert)}: {_headline(alert)}", alert.message, *(f"  {name}: {value}" for name, value in _facts(alert))]
        parts.append("\n".join(lines))
    if rest := _rest(alerts):
        parts.append("\n".join(rest))
    return "\n\n".join([*parts, _FOOT]) + "\n"


def _html_body(alerts: Sequence[Alert], schema: str) -> str:
    """The HTML part: no pictures, nothing fetched, and every value escaped."""
    parts = []
    for alert in alerts[:MOST_WHOLE]:
        colour = _COLOUR["over" if alert.is_recovery else alert.severity]
        rows = "".join(
            f'<tr><th align="left" valign="top" style="padding:2px 12px 2px 0;color:#555;font-weight:normal;white-space:nowrap">{name}</th>'
            f'<td style="padding:2px 0">{_cell(name, value)}</td></tr>'
            for name, value in _facts(alert)
        )
        parts.append(
            f'<div style="border-left:4px solid {colour};padding:4px 0 4px 14px;margin:0 0 22px">'
            f'<h2 style="font-size:17px;margin:0 0 4px"><span style="color:{colour}">{_word(alert)}</span> '
            f"{html.escape(_headline(alert))}</h2>"
            f'<p style="margin:0 0 8px">{html.escape(alert.message)}</p>'
            f'<table style="border-collapse:collapse;font-size:13px">{rows}</table></div>'
        )
    if rest := _rest(alerts):
        parts.append("<p>" + "<br>".join(html.escape(line) for line in rest) + "</p>")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(_subject(alerts, schema))}</title></head>'
        '<body style="font:15px/1.45 system-ui,sans-serif;color:#1a1a1a;background:#ffffff;max-width:760px;margin:20px">'
        f'{"".join(parts)}<p style="color:#555;font-size:13px">{html.escape(_FOOT)}</p></body></html>'
    )


def webhook_text(alerts: Sequence[Alert], schema: str) -> str:
    """The same for a chat: a headline, and a line for each alert."""
    alerts = _ordered(alerts)
    lines = [f"*{escaped(_subject(alerts, schema))}*"]
    lines += [f"• {_word(alert)} {escaped(_headline(alert))}: {escaped(alert.message)}" for alert in alerts[:MOST_WHOLE]]
    lines += [escaped(line) for line in _rest(alerts)]
    if alerts[0].link.startswith("https://"):
        lines.append(f"<{alerts[0].link}|the run>")
    return "\n".join(lines)


def _word(alert: Alert) -> str:
    return "RECOVERED" if alert.is_recovery else alert.severity.upper()


def _rest(alerts: Sequence[Alert]) -> list[str]:
    """A line for each alert that is not shown whole."""
    rest = alerts[MOST_WHOLE:]
    lines = [f"{_word(alert)}: {_headline(alert)}, {alert.event_time.astimezone(UTC):%Y-%m-%d %H:%M} UTC" for alert in rest[:MOST_LINES]]
    if len(rest) > MOST_LINES:
        lines.append(f"and {len(rest) - MOST_LINES:,} more, in the table alert_outbox")
    return lines


def _cell(name: str, value: str) -> str:
    text = html.escape(value)
    if name == "Query":
        return f'<code style="font-size:12px">{text}</code>'
    return f'<a href="{text}">{text}</a>' if name == "Run" and value.startswith(("https://", "file://")) else text


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
