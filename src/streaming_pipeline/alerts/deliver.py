"""What is to be sent now, and sending it: which alerts wait, which go together, and what becomes of each.

At least once: that a message is about to be handed over, and that it was taken, is noted in files, and in the table behind all of
them. What a sender that was killed had sent is found there; only what was on its way then goes out again, with the same Message-ID.
"""

import hashlib
import json
import os
import random
import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event, Thread

from streaming_pipeline.alerts.outbox import Alert
from streaming_pipeline.alerts.rules import Rules
from streaming_pipeline.core.errors import PipelineError
from streaming_pipeline.core.json_files import EMPTY, Damaged, read_json, set_aside

MAX_ATTEMPTS = 20
"""With the pauses between them: some two days."""
FIRST_PAUSE, LONGEST_PAUSE = timedelta(seconds=5), timedelta(hours=6)
PATIENCE = timedelta(minutes=2)
"""So long one run waits, in all, for further attempts; the next run goes on."""
LONGEST_DELIVERY = timedelta(minutes=15)
"""After that no message is begun."""
_LONGEST_LEFT = timedelta(minutes=2)
"""More than any sender's own limit for one message."""
_MOST_LOST_CONNECTIONS = 3
_MESSAGE_ID = re.compile(r"[0-9A-Za-z_-]{1,64}")


class Temporary(Exception):
    """It was not delivered, and may be later. `is_unclear`: the server may have taken it all the same."""

    def __init__(
        self, reason: str, *, is_unclear: bool = False, is_connection: bool = False, left: Sequence[str] = (), have_it: bool = False
    ) -> None:
        super().__init__(reason)
        self.is_unclear = is_unclear
        self.is_connection = is_connection
        """Nobody answered, or too slowly: others would fare the same."""
        self.left = tuple(left)
        """Recipients that are to get it yet, where others got it (`have_it`) or were refused for good; empty: all."""
        self.have_it = have_it


class Refused(Exception):
    """It was not delivered and never will be."""


@dataclass(frozen=True)
class Message:
    """Alerts that go out together."""

    message_id: str
    channel: str
    recipients: tuple[str, ...]
    alerts: tuple[Alert, ...]
    due: datetime
    """Not before."""


@dataclass(frozen=True)
class Plan:
    """What becomes of the alerts that wait: messages to send, oldest first, alerts that are muted, and alerts that wait on."""

    messages: list[Message]
    muted: list[Alert]
    held: list[Alert]


def plan(
    alerts: Iterable[Alert],
    rules: Rules,
    silences: Mapping[str, datetime],
    now: datetime,
    begun: Mapping[str, Collection[str]],
) -> Plan:
    """Decide about the PENDING ones of `alerts`, which are all that are kept in mind.

    `silences` has rule → until when; `begun` the messages that may have arrived, and their alerts: they go out as they were, each
    when the pause behind its last attempt is over.
    """
    told: dict[tuple[str, str], Alert] = {}
    last_sent: dict[tuple[str, str], datetime] = {}
    last_live: dict[tuple[str, str], datetime] = {}
    # It goes on, or began lately: what was long over when it was told holds nothing back that is not.
    is_live = lambda alert: alert.is_ongoing or alert.created_at - alert.event_time <= rules.cooldown(alert.rule)  # noqa: E731
    waiting: dict[tuple[str, str], list[Alert]] = {}
    message_of = {alert_id: message_id for message_id, ids in begun.items() for alert_id in ids}
    bundles: dict[tuple, list[Alert]] = {}
    out = Plan([], [], [])
    # No pause is so long: what is further ahead was written before the clock was set back, and would be waited for as long as that.
    furthest = now + 2 * LONGEST_PAUSE
    is_due = lambda alert: not now < alert.next_attempt_at <= furthest  # noqa: E731
    for alert in alerts:
        key = (alert.fingerprint, alert.channel)
        if alert.sent_at and alert.status in ("SENT", "PENDING"):  # PENDING: some have it, others are to get it yet
            told[key] = alert
            if not alert.is_recovery and alert.sent_at <= furthest:
                for last in (last_sent, last_live) if is_live(alert) else (last_sent,):
                    last[key] = max(alert.sent_at, last.get(key, alert.sent_at))
        elif alert.is_recovery and alert.status in ("MUTED", "DEAD"):
            told.pop(key, None)  # nobody heard of the end; what comes after it is new all the same
        if alert.status == "PENDING" and alert.alert_id in message_of:
            bundles.setdefault((message_of[alert.alert_id],), []).append(alert)
        elif alert.status == "PENDING" and alert.rule in silences:
            out.muted.append(alert.muted(f"silence of rule {alert.rule} until {silences[alert.rule]:%Y-%m-%d %H:%M} UTC"))
        elif alert.status == "PENDING" and alert.sent_at:
            if is_due(alert):
                bundles.setdefault(("", alert.channel, alert.recipients), []).append(alert)
        elif alert.status == "PENDING":
            waiting.setdefault(key, []).append(alert)
    for key, of_key in waiting.items():
        last = last_live if any(is_live(alert) for alert in of_key if not alert.is_recovery) else last_sent
        until = last[key] + rules.cooldown(of_key[0].rule) if key in last else now
        if key in told and not told[key].is_recovery and (end := _first_recovery(of_key)) is not None:
            # The end of what was told is told at once, without what came of the same meanwhile.
            out.muted.extend(alert.muted("its beginning was reported, and it is over") for alert in of_key[:end])
            ending, of_key = [of_key[end]], of_key[end + 1 :]
        elif all(alert.is_recovery for alert in of_key):
            out.muted.extend(alert.muted("its beginning was not reported") for alert in of_key)
            continue
        else:
            ending = []
        is_cooling = until > now and any(not alert.is_recovery for alert in of_key)
        if is_cooling:
            reason = f"cooldown: last sent {last[key]:%Y-%m-%d %H:%M}, next from {until:%Y-%m-%d %H:%M} UTC"
            out.held.extend(replace(alert, reason=reason) for alert in of_key)
        for alert in ending if is_cooling else [*ending, *of_key]:
            if is_due(alert):
                together = (alert.channel, alert.recipients) if rules.group else (alert.alert_id,)
                bundles.setdefault(("", *together), []).append(alert)
    out.messages.extend(_message(key[0], tuple(bundle), now) for key, bundle in bundles.items() if all(map(is_due, bundle)))
    return out


def _first_recovery(alerts: Sequence[Alert]) -> int | None:
    return next((n for n, alert in enumerate(alerts) if alert.is_recovery), None)


def _message(message_id: str, alerts: tuple[Alert, ...], now: datetime) -> Message:
    ids = sorted(alert.alert_id for alert in alerts)
    first = alerts[0]
    return Message(message_id or hashlib.sha256("\n".join(ids).encode()).hexdigest()[:32], first.channel, first.recipients, alerts, now)


class Journal:
    """What became of messages since the table was last written: files, since a commit of the table takes half a second.

    `<message>.begun` has the alerts of a message that a server may have; `<message>.sent`, with the same alerts, says that it has taken it.
    A folder that cannot be written keeps no mail back: `fault` says so, and the table alone knows what was sent. Nor does a file that
    cannot be read: `damaged` says which.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.fault: str | None = None
        self.damaged: list[str] = []

    def begin(self, message: Message) -> bool:
        """It is about to be handed over; returns whether it was before, and may have arrived then."""
        may_have_arrived = (self.folder / f"{message.message_id}.begun").exists()
        self._write(message, "begun")
        return may_have_arrived

    def sent(self, message: Message) -> None:
        """The server has taken it."""
        self._write(message, "sent")

    def forget(self, message_id: str) -> None:
        """It surely was not taken, or the table knows that it was."""
        with self._noting_faults():
            for name in ("begun", "sent"):
                (self.folder / f"{message_id}.{name}").unlink(missing_ok=True)

    def read(self) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
        """(messages that may have been taken, messages that were), each with its alerts. Files that cannot be read are set aside."""
        begun, sent = {}, {}
        for name in sorted({file.stem for kind in ("begun", "sent") for file in self.folder.glob(f"*.{kind}")}):
            ids, was_sent = self._alerts(name, "begun"), False
            if os.path.lexists(self.folder / f"{name}.sent"):
                # Whatever it holds: that it is there says that the server took the message.
                was_sent, said = True, self._alerts(name, "sent", is_alone=ids is None)
                ids = said if ids is None else ids
            if ids is not None:
                (sent if was_sent else begun)[name] = ids
        return begun, sent

    def _alerts(self, name: str, kind: str, is_alone: bool = True) -> list[str] | None:
        """The alerts that a file names; None if there is no such file, or it was damaged, which matters if it `is_alone`."""
        file = self.folder / f"{name}.{kind}"
        try:
            return _alert_ids(file)
        except FileNotFoundError:
            return None
        except Damaged as damage:
            if kind == "sent" and str(damage) == EMPTY:  # as older versions left it, or killed before it wrote
                if is_alone:
                    self.forget(name)
                return None
            said = set_aside(file, str(damage))
            self.damaged += [f"{said} If its mail was sent, it may come again."] if is_alone else []
            return None

    def _write(self, message: Message, kind: str) -> None:
        with self._noting_faults():
            self.folder.mkdir(parents=True, exist_ok=True)
            ids = json.dumps([alert.alert_id for alert in message.alerts])
            (self.folder / f"{message.message_id}.{kind}").write_text(ids, encoding="utf-8")

    @contextmanager
    def _noting_faults(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.fault = f"{self.folder} cannot be written ({error.strerror}): should this task be killed, mails may come twice."


def _alert_ids(file: Path) -> list[str]:
    """The alerts that a file of the journal names; raises `FileNotFoundError` and `Damaged`."""
    alerts = read_json(file)
    if not _MESSAGE_ID.fullmatch(file.stem):  # a mail's header is made of it
        raise Damaged("its name is no message's")
    if not isinstance(alerts, list) or not all(isinstance(alert_id, str) for alert_id in alerts):
        raise Damaged("it is no list of alerts")
    return alerts


@dataclass
class Outcome:
    """What became of the messages: alert_id → the alert as it is now, and channel → what is wrong with its settings."""

    alerts: dict[str, Alert] = field(default_factory=dict)
    wrong: dict[str, str] = field(default_factory=dict)

    def of(self, status: str) -> list[Alert]:
        """The alerts of a status."""
        return [alert for alert in self.alerts.values() if alert.status == status]

    def is_final(self, alert: Alert) -> bool:
        """Whether an alert is through, one way or the other."""
        return alert.alert_id in self.alerts and self.alerts[alert.alert_id].status != "PENDING"

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
    """Send messages until all are sent or given up, or `patience` is used up. `outcome` holds after any end what became of them.

    A sender takes a message of its channel and returns a remark or None; it raises `Temporary`, `Refused`, or `PipelineError` where the
    settings are wrong: then what is left of the channel stays as it is. So do messages of a channel without a sender.

    Each channel has a thread of its own, and none waits for another. A sender limits each of its deliveries itself; a channel that goes on
    for long all the same is left behind, and its alerts wait.
    """
    stop, failures = Event(), []
    queues: dict[str, list[Message]] = {}
    for message in messages:
        if message.channel in senders:
            queues.setdefault(message.channel, []).append(message)
    outcomes = {channel: Outcome() for channel in queues}

    def run(channel: str) -> None:
        try:
            _deliver_channel(queues[channel], senders[channel], journal, outcomes[channel], patience, stop)
        except BaseException as error:
            failures.append(error)

    threads = {channel: Thread(target=run, args=(channel,), name=f"alerts-{channel}", daemon=True) for channel in queues}
    until = time.monotonic() + (LONGEST_DELIVERY + _LONGEST_LEFT).total_seconds()
    try:
        for thread in threads.values():
            thread.start()
        for thread in threads.values():
            thread.join(max(until - time.monotonic(), 0))
    finally:
        stop.set()
        for channel, theirs in outcomes.items():
            outcome.put(dict(theirs.alerts).values())
            outcome.wrong |= theirs.wrong
            if threads[channel].is_alive():
                outcome.wrong[channel] = f"The channel {channel} hangs and cannot be cut off: what it has not sent waits for the next run."
    if failures:
        raise failures[0]


def _deliver_channel(
    queue: list[Message],
    send: Callable[[Message], str | None],
    journal: Journal,
    outcome: Outcome,
    patience: timedelta,
    stop: Event,
) -> None:
    """Send the messages of one channel, until it is told to stop."""
    queue = sorted(queue, key=lambda message: message.due)
    waited, began, lost = timedelta(), datetime.now(UTC), 0
    while queue and lost < _MOST_LOST_CONNECTIONS:
        message = queue.pop(0)
        now = datetime.now(UTC)
        pause = max(message.due - now, timedelta())
        waited += pause
        if waited > patience or now - began > LONGEST_DELIVERY or stop.wait(pause.total_seconds()):
            return
        may_have_arrived = journal.begin(message)
        try:
            remark = send(message)
        except PipelineError as error:
            if not may_have_arrived:
                journal.forget(message.message_id)
            outcome.wrong[message.channel] = str(error)
            return
        except Refused as refused:
            journal.forget(message.message_id)
            outcome.put(replace(alert, status="DEAD", attempts=alert.attempts + 1, reason=str(refused)) for alert in message.alerts)
        except Temporary as failure:
            if not failure.is_unclear and not may_have_arrived:
                journal.forget(message.message_id)
            again = _failed(message, failure)
            outcome.put(again.alerts)
            lost = lost + 1 if failure.is_connection else 0
            if left := tuple(alert for alert in again.alerts if alert.status == "PENDING"):
                queue = sorted([*queue, replace(again, alerts=left)], key=lambda one: one.due)
            else:
                journal.forget(message.message_id)
        except Exception as error:
            # Nobody foresaw it: it must keep back neither what the other channels have to tell, nor the other messages of this one.
            outcome.wrong[message.channel] = f"The channel {message.channel} cannot be used ({type(error).__name__}): check its settings."
            again = _failed(message, Temporary(f"it could not be sent ({type(error).__name__})", is_unclear=True))
            outcome.put(again.alerts)
            lost += 1
            if all(alert.status == "DEAD" for alert in again.alerts):
                journal.forget(message.message_id)
        else:
            done = {"status": "SENT", "sent_at": datetime.now(UTC), "message_id": message.message_id, "reason": remark}
            done["recipients"] = message.recipients
            outcome.put(replace(alert, attempts=alert.attempts + 1, **done) for alert in message.alerts)
            journal.sent(message)
            lost = 0


def _failed(message: Message, failure: Temporary) -> Message:
    """The message after an attempt that failed: when the next one is due, and for whom. What was tried too often is DEAD."""
    fewest = min(alert.attempts for alert in message.alerts)
    usual = min(FIRST_PAUSE * 2**fewest, LONGEST_PAUSE)
    due = datetime.now(UTC) + usual * random.uniform(0.5, 1.5)  # so that many senders do not come back at once
    recipients = failure.left or message.recipients
    some_have_it = {"sent_at": datetime.now(UTC)} if failure.have_it else {}
    alerts = []
    for alert in message.alerts:
        attempts = alert.attempts + 1
        is_dead = attempts >= MAX_ATTEMPTS
        reason = f"given up after {MAX_ATTEMPTS} attempts: {failure}" if is_dead else str(failure)
        status = "DEAD" if is_dead else "PENDING"
        change = {"status": status, "attempts": attempts, "next_attempt_at": due, "reason": reason, "recipients": recipients}
        alerts.append(replace(alert, **change, **some_have_it))
    return replace(message, alerts=tuple(alerts), recipients=recipients, due=due)
