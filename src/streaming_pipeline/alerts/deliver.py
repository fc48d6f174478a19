"""What is to be sent now, and sending it: which alerts wait, which go together, and what becomes of each.

At least once: a delivery is noted in a file as soon as the server has taken it, and in the table behind all of them. A sender that is
killed in between finds the file; only one killed between the server's answer and the file sends again, with the same Message-ID.
"""

import hashlib
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from streaming_pipeline.alerts.outbox import Alert
from streaming_pipeline.alerts.rules import Rules
from streaming_pipeline.errors import PipelineError

MAX_ATTEMPTS = 20
"""With the pauses between them: some two days."""
FIRST_PAUSE, LONGEST_PAUSE = timedelta(seconds=5), timedelta(hours=6)
PATIENCE = timedelta(minutes=2)
"""So long one run waits, in all, for further attempts; the next run goes on."""
LONGEST_DELIVERY = timedelta(minutes=15)
_MOST_LOST_CONNECTIONS = 3


class Temporary(Exception):
    """It was not delivered, and may be later. `is_unclear`: the server may have taken it all the same."""

    def __init__(self, reason: str, *, is_unclear: bool = False, is_connection: bool = False, left: Sequence[str] = ()) -> None:
        super().__init__(reason)
        self.is_unclear = is_unclear
        self.is_connection = is_connection
        """Nobody answered: others would fare the same."""
        self.left = tuple(left)
        """Recipients that did not get it, where others did; empty: all."""


class Refused(Exception):
    """It was not delivered and never will be."""


@dataclass(frozen=True)
class Message:
    """Alerts that go out together."""

    message_id: str
    channel: str
    recipients: tuple[str, ...]
    alerts: tuple[Alert, ...]

    @property
    def attempts(self) -> int:
        """How often it was tried."""
        return max(alert.attempts for alert in self.alerts)

    @property
    def due(self) -> datetime:
        """Not before."""
        return max(alert.next_attempt_at for alert in self.alerts)


@dataclass(frozen=True)
class Plan:
    """What becomes of the alerts that wait: messages to send, oldest first, alerts that are muted, and alerts that wait on."""

    messages: list[Message]
    muted: list[Alert]
    held: list[Alert]

    @property
    def alerts(self) -> list[Alert]:
        """All that were decided about."""
        return [*self.muted, *self.held, *(alert for message in self.messages for alert in message.alerts)]


def plan(alerts: Iterable[Alert], rules: Rules, silences: Mapping[str, datetime], now: datetime) -> Plan:
    """Decide about the PENDING ones of `alerts`, which are all that are kept in mind; `silences` has rule → until when."""
    alerts = list(alerts)
    last_sent: dict[tuple[str, str], datetime] = {}
    for alert in alerts:
        if alert.status == "SENT" and not alert.is_recovery and alert.sent_at:
            key = (alert.fingerprint, alert.channel)
            last_sent[key] = max(alert.sent_at, last_sent.get(key, alert.sent_at))
    out = Plan([], [], [])
    waiting: dict[tuple[str, str], list[Alert]] = {}
    for alert in (alert for alert in alerts if alert.status == "PENDING"):
        if alert.rule in silences and not alert.message_id:
            out.muted.append(alert.muted(f"silence of rule {alert.rule} until {silences[alert.rule]:%Y-%m-%d %H:%M} UTC"))
        else:
            waiting.setdefault((alert.fingerprint, alert.channel), []).append(alert)
    bundles: dict[tuple, list[Alert]] = {}
    for key, of_key in waiting.items():
        until = last_sent[key] + rules.cooldown(of_key[0].rule) if key in last_sent else now
        # The end of something that nobody was told of waits with it.
        is_cooling = until > now and any(not alert.is_recovery for alert in of_key)
        for alert in of_key:
            if alert.message_id:  # it was on its way, and may have arrived: the same message again
                bundles.setdefault((alert.message_id,), []).append(alert)
            elif is_cooling:
                out.held.append(
                    replace(alert, reason=f"told {last_sent[key]:%Y-%m-%d %H:%M} UTC, again from {until:%Y-%m-%d %H:%M} UTC on")
                )
            else:
                together = (alert.channel, alert.recipients) if rules.group else (alert.alert_id,)
                bundles.setdefault(("", *together), []).append(alert)
    out.messages.extend(_message(tuple(bundle)) for bundle in bundles.values())
    out.messages.sort(key=lambda message: message.due)
    return out


def _message(alerts: tuple[Alert, ...]) -> Message:
    first = alerts[0]
    message_id = first.message_id or hashlib.sha256("\n".join(sorted(alert.alert_id for alert in alerts)).encode()).hexdigest()[:32]
    claimed = tuple(replace(alert, message_id=message_id) for alert in alerts)
    return Message(message_id, first.channel, first.recipients, claimed)


class Journal:
    """One small file for each message that a server has taken and the table does not know of yet; volumes know no appending."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def note(self, message_id: str, sent_at: datetime) -> None:
        """Note that a message was taken."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / message_id).write_text(sent_at.isoformat(), encoding="utf-8")

    def read(self) -> dict[str, datetime]:
        """Message → when it was taken."""
        found = {}
        for file in self.folder.glob("*") if self.folder.is_dir() else ():
            try:
                found[file.name] = datetime.fromisoformat(file.read_text(encoding="utf-8"))
            except ValueError:  # killed while it wrote; that the file is there says it
                found[file.name] = datetime.now(UTC)
        return found

    def forget(self, message_ids: Iterable[str]) -> None:
        """The table knows of these."""
        for message_id in message_ids:
            (self.folder / message_id).unlink(missing_ok=True)


@dataclass
class Outcome:
    """What became of the messages: alert_id → the alert as it is now, and channel → what is wrong with its settings."""

    alerts: dict[str, Alert] = field(default_factory=dict)
    wrong: dict[str, PipelineError] = field(default_factory=dict)

    def of(self, status: str) -> list[Alert]:
        """The alerts of a status."""
        return [alert for alert in self.alerts.values() if alert.status == status]

    def put(self, alerts: Iterable[Alert]) -> None:
        """Note what became of alerts."""
        self.alerts |= {alert.alert_id: alert for alert in alerts}


def deliver(
    messages: Iterable[Message],
    senders: Mapping[str, Callable[[Message], str | None]],
    journal: Journal,
    outcome: Outcome,
    patience: timedelta = PATIENCE,
) -> None:
    """Send messages until all are sent or given up, or `patience` is used up. `outcome` is filled on the way: it holds after any end.

    A sender takes a message of its channel and returns a remark or None; it raises `Temporary`, `Refused`, or `PipelineError` where the
    settings are wrong: then what is left of the channel stays as it is. So do messages of a channel without a sender.
    """
    queue = sorted((message for message in messages if message.channel in senders), key=lambda message: message.due)
    waited, began, lost = timedelta(), datetime.now(UTC), 0
    while queue:
        message = queue.pop(0)
        now = datetime.now(UTC)
        waited += max(message.due - now, timedelta())
        if waited > patience or now - began > LONGEST_DELIVERY:
            return
        time.sleep(max((message.due - now).total_seconds(), 0))
        try:
            remark = senders[message.channel](message)
        except PipelineError as error:
            outcome.wrong[message.channel] = error
            queue = [other for other in queue if other.channel != message.channel]
        except Refused as refused:
            outcome.put(_ended(message, "DEAD", str(refused)))
        except Temporary as failure:
            lost = lost + 1 if failure.is_connection else 0
            message = _failed(message, failure)
            if message.attempts >= MAX_ATTEMPTS:
                outcome.put(_ended(message, "DEAD", f"given up after {MAX_ATTEMPTS} attempts: {failure}", attempts=0))
                continue
            # What surely was not taken may go with others next time; else it stays the message that it is.
            is_free = not failure.is_unclear and not failure.left
            outcome.put(replace(alert, message_id=None) if is_free else alert for alert in message.alerts)
            if lost >= _MOST_LOST_CONNECTIONS:
                queue = [other for other in queue if other.channel != message.channel]
            else:
                queue = sorted([*queue, message], key=lambda one: one.due)
        else:
            lost = 0
            sent_at = datetime.now(UTC)
            journal.note(message.message_id, sent_at)
            outcome.put(replace(alert, sent_at=sent_at) for alert in _ended(message, "SENT", remark))


def _ended(message: Message, status: str, reason: str | None, attempts: int = 1) -> list[Alert]:
    return [replace(alert, status=status, attempts=alert.attempts + attempts, reason=reason) for alert in message.alerts]


def _failed(message: Message, failure: Temporary) -> Message:
    """The message after an attempt that failed: when the next one is due, and for whom."""
    attempts = message.attempts + 1
    usual = min(FIRST_PAUSE * 2 ** (attempts - 1), LONGEST_PAUSE)
    due = datetime.now(UTC) + usual * random.uniform(0.5, 1.5)  # so that many senders do not come back at once
    recipients = failure.left or message.recipients
    alerts = tuple(
        replace(alert, attempts=attempts, next_attempt_at=due, reason=str(failure), recipients=recipients) for alert in message.alerts
    )
    return replace(message, alerts=alerts, recipients=recipients)
