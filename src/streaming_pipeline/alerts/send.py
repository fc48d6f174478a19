"""Task 05: findings become alerts in `alert_outbox`, and what is due is sent."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from py4j.protocol import Py4JError
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from streaming_pipeline.alerts import outbox, webhook
from streaming_pipeline.alerts.deliver import PATIENCE, Journal, Message, Outcome, Plan, Temporary, deliver, plan
from streaming_pipeline.alerts.derive import Occasion, derive, still_open
from streaming_pipeline.alerts.findings import failed_tasks, job_failure, read_looks
from streaming_pipeline.alerts.line import TIMEOUT_SECONDS
from streaming_pipeline.alerts.mail import compose, title, webhook_text
from streaming_pipeline.alerts.outbox import Alert
from streaming_pipeline.alerts.rules import LONGEST, WITHOUT_FILE, Rules, load_rules
from streaming_pipeline.alerts.silence import silences
from streaming_pipeline.alerts.smtp import MailServer, SmtpSettings
from streaming_pipeline.core import tables
from streaming_pipeline.core.errors import PipelineError, UsageError, damaged_table
from streaming_pipeline.core.foreign_text import harmless
from streaming_pipeline.core.settings import Settings
from streaming_pipeline.core.wording import plural

_MOST_SAID = 3
"""So many files and rows that could not be read are named."""


@dataclass(frozen=True)
class Sending:
    """What task 05 did."""

    new: tuple[Alert, ...]
    became: Mapping[str, Sequence[Alert]]
    """The alerts that were sent, muted, became dead, wait for their cooldown (held), or wait to be delivered (waiting)."""
    waiting_for: tuple[str, ...]
    failed_tasks: tuple[str, ...]
    problems: tuple[str, ...]
    """Sentences for which the task must fail."""
    damaged: tuple[str, ...] = ()
    """Sentences about files and rows that could not be read, and were passed over."""

    @property
    def records(self) -> int:
        """Alerts added."""
        return len(self.new)

    @property
    def note(self) -> str:
        """The same in a sentence."""
        told = (
            f"{plural(len(alerts), 'alert')} {name}{_in_messages(alerts) if name == 'sent' else _about(alerts)}"
            for name, alerts in self.became.items()
            if alerts
        )
        said = ": ".join(filter(None, (", ".join(told), "; ".join(self.waiting_for))))
        more = f"{len(self.damaged) - _MOST_SAID:,} more cannot be read." if len(self.damaged) > _MOST_SAID else ""
        return "; ".join(filter(None, (said, " ".join(filter(None, (*self.damaged[:_MOST_SAID], more))))))


def _in_messages(alerts: Iterable[Alert]) -> str:
    return f" in {plural(len({alert.message_id for alert in alerts}), 'message')}"


def _about(alerts: Iterable[Alert]) -> str:
    """What they are about, in brackets."""
    titles = list(dict.fromkeys(title(alert) for alert in alerts))
    return f" ({', '.join(titles[:3])}{', …' if len(titles) > 3 else ''})"


def send_alerts(
    spark: SparkSession,
    settings: Settings,
    states: Mapping[str, str],
    read_secrets: Callable[[], Mapping[str, str]],
    link: str = "",
    *,
    patience: timedelta = PATIENCE,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> Sending:
    """Derive alerts from what the looks since the last time found and from how the tasks of this run ended, and send what is due.

    `states` has each task's result state, as the job hands it over; `read_secrets` gives the SMTP_ and ALERT_ settings; `link` leads to the
    run. Settings or rules that are wrong lose nothing: what can be derived is written, the rest is derived once they are right, and
    `Sending.problems` tells of them.
    """
    now = datetime.now(UTC)
    # monitor_logs too: where no run ever comes to task 03 the SQL alert "stale" finds it empty, and tells.
    with suppress(PySparkException, Py4JError):  # a damaged one: whoever reads it says so
        tables.create_missing(spark, settings, [tables.ALERT_OUTBOX, tables.ALERT_SILENCES, tables.MONITOR_LOGS])
    folder = Path(settings.runs_dir, "alerts", settings.schema)
    journal, cursor = Journal(folder / "sent"), folder / "derived_until"
    try:
        known, damaged = outbox.load(spark, settings, now)
        known, begun = _settle(spark, settings, known, journal)
    except Exception as error:
        return _without_outbox(settings, states, read_secrets, link, journal, error, patience, timeout_seconds)
    damaged = [*journal.damaged, *damaged]

    problems: list[str] = []
    rules, secrets, looks, new = WITHOUT_FILE, {}, [], []
    try:
        secrets = read_secrets()
        rules = load_rules(settings.alert_rules_path)
        still = still_open(known)
        kinds = {rule.finding for rule in rules.rules} | {alert.anomaly_type for alert in still}
        is_drift_open = any("drift" in alert.anomaly_type for alert in still)
        looks = read_looks(spark, settings, _read_cursor(cursor, now, known) or now - LONGEST, kinds, is_drift_open)
        known = _rerouted(known, rules, secrets)
        new = derive(looks, None, False, rules, known, _occasion(settings, link, secrets, now))
    except Exception as error:
        # Whatever it is: that a task of this run failed only this run knows.
        said = str(error) if isinstance(error, UsageError) else f"What monitoring found cannot be read{_because(error)}."
        problems.append(f"{said} Until that is fixed, only failed runs are reported.")
        rules, looks = WITHOUT_FILE, []
    failed = failed_tasks(states)
    failure = job_failure(failed, settings, now) if failed else None
    new += derive([], failure, bool(states) and not failed, rules, [*known, *new], _occasion(settings, link, secrets, now))

    # Without rules nobody can say what may be told by now, but for what holds without them.
    candidates = [alert for alert in (*known, *new) if rules is not WITHOUT_FILE or alert.anomaly_type == "job_failed"]
    is_any_waiting = any(alert.status == "PENDING" for alert in candidates)
    planned = plan(candidates, rules, _silences(spark, settings, now, damaged) if is_any_waiting else {}, now, begun)
    decided = {alert.alert_id: alert for alert in (*planned.muted, *planned.held)}
    new = [decided.get(alert.alert_id, _waiting(alert, secrets)) for alert in new]
    outbox.add(spark, settings, new)
    if looks:
        with suppress(OSError):  # it saves reading, no more
            _write_cursor(cursor, looks[-1][0].run_time, [*known, *new])

    outcome = Outcome()
    try:
        senders = _hand_over(planned.messages, settings, secrets, journal, outcome, problems, patience, timeout_seconds)
    finally:
        changed = [decided[alert.alert_id] for alert in known if decided.get(alert.alert_id, alert) != alert]
        outbox.update(spark, settings, [*changed, *outcome.alerts.values()])
        for message in planned.messages:
            if all(outcome.is_final(alert) for alert in message.alerts):
                journal.forget(message.message_id)
    for said in damaged:
        print(said)
    _print(new)
    through = {alert.alert_id for alert in (*planned.muted, *planned.held)}
    waiting = [outcome.alerts.get(alert.alert_id, alert) for alert in candidates if alert.alert_id not in through]
    waiting = [alert for alert in waiting if alert.status == "PENDING"]
    return replace(_summary(new, planned, outcome, waiting, senders, failed, problems), damaged=tuple(damaged))


def _without_outbox(
    settings: Settings,
    states: Mapping[str, str],
    read_secrets: Callable[[], Mapping[str, str]],
    link: str,
    journal: Journal,
    error: Exception,
    patience: timedelta,
    timeout_seconds: float,
) -> Sending:
    """Tell at once, and without the table, that alerts cannot be read and which tasks failed; all else waits until it can be read again.

    Once for each run: what the journal says was sent is not sent again by a retry.
    """
    now, failed = datetime.now(UTC), failed_tasks(states)
    problems = [str(damaged_table(error) or f"alert_outbox cannot be read{_because(error)}.")]
    problems.append("Until that is fixed, only failed runs are reported.")
    secrets, rules = {}, WITHOUT_FILE
    try:
        secrets = read_secrets()
        rules = load_rules(settings.alert_rules_path)
    except UsageError as wrong:
        problems.append(str(wrong))
    failure = job_failure((*failed, "reading alert_outbox"), settings, now)
    alerts = derive([], failure, False, rules, [], _occasion(settings, link, secrets, now))
    planned, sent, outcome = plan(alerts, rules, {}, now, {}), journal.read()[1], Outcome()
    messages = [message for message in planned.messages if message.message_id not in sent]
    senders = _hand_over(messages, settings, secrets, journal, outcome, problems, patience, timeout_seconds)
    _print(alerts)
    return _summary(alerts, planned, outcome, [], senders, failed, problems)


def _hand_over(
    messages: Iterable[Message],
    settings: Settings,
    secrets: Mapping[str, str],
    journal: Journal,
    outcome: Outcome,
    problems: list[str],
    patience: timedelta,
    timeout_seconds: float,
) -> Collection[str]:
    """Deliver messages on the channels that are set up, and return these; `outcome` holds after any end what became of the messages.

    The connections are closed then: what a delivery that goes on yet does later, the journal alone knows.
    """
    with ExitStack() as until_sent:
        smtp = _checked(SmtpSettings.from_secrets, secrets, problems)
        senders = _senders(smtp, secrets, _name(settings), timeout_seconds, until_sent, problems)
        to = {"email": smtp.recipients if smtp else (), "webhook": ()}
        addressed = [replace(message, recipients=message.recipients or to[message.channel]) for message in messages]
        deliver(addressed, senders, journal, outcome, patience)
    problems += [journal.fault] if journal.fault else []
    return senders


def _print(new: Iterable[Alert]) -> None:
    for alert in new:
        print(f"{alert.severity.upper()} {alert.anomaly_type}: {harmless(alert.message)}")


def _because(error: Exception) -> str:
    """What failed, in brackets."""
    return f" ({type(error).__name__}: {harmless(str(error).split(chr(10))[0], 200)})"


def _silences(spark: SparkSession, settings: Settings, now: datetime, damaged: list[str]) -> dict[str, datetime]:
    """Which rules are silent; none where that cannot be read, which is said: better told twice than never."""
    try:
        return silences(spark, settings, now)
    except Exception as error:
        damaged.append(f"{damaged_table(error) or f'alert_silences cannot be read{_because(error)}.'} No rule is taken for silent.")
        return {}


def _summary(
    new: list[Alert],
    planned: Plan,
    outcome: Outcome,
    waiting: list[Alert],
    senders: Collection[str],
    failed: tuple[str, ...],
    problems: list[str],
) -> Sending:
    problems = [*problems, *outcome.wrong.values()]
    if dead := outcome.of("DEAD"):
        reasons = "; ".join(reason for reason, _ in Counter(alert.reason for alert in dead).most_common(3))
        problems.append(
            f"{plural(len(dead), 'alert')} could not be delivered: DEAD in alert_outbox ({reasons}). Fix the cause, then run "
            "`streaming-pipeline resend`, or the job resend_alerts."
        )
    muted = {alert.alert_id: alert for alert in (*planned.muted, *new) if alert.status == "MUTED"}
    became = {
        "sent": outcome.of("SENT"),
        "muted": list(muted.values()),
        "dead": dead,
        "held back by a cooldown": planned.held,
        "waiting": waiting,
    }
    why = (alert.reason if alert.channel in senders else f"{CHANNELS[alert.channel].setting} is not set" for alert in waiting)
    return Sending(tuple(new), became, tuple(dict.fromkeys(filter(None, why)))[:3], failed, tuple(problems))


def run_link(settings: Settings, workspace_url: str, job_id: str) -> str:
    """What leads to the run: its page in the workspace or, without one, the page that a run on a laptop leaves in its folder."""
    if not workspace_url:
        return Path(settings.run_dir, "index.html").absolute().as_uri()
    return f"{workspace_url if '://' in workspace_url else f'https://{workspace_url}'}/jobs/{job_id}/runs/{settings.run_id}"


def fail_if_something_is_wrong(sending: Sending) -> None:
    """Raise `PipelineError` if a task of the run failed, since this one comes last and the run takes its state from it, or if alerts
    could not be told."""
    failed = [f"The run failed because {', '.join(sending.failed_tasks)} failed."] if sending.failed_tasks else []
    if said := [*failed, *sending.problems]:
        raise PipelineError(" ".join(said))


@dataclass(frozen=True)
class Channel:
    """A way to tell people: the setting without which it is not there, and what its settings begin with."""

    setting: str
    prefix: str

    def is_there(self, secrets: Mapping[str, str]) -> bool:
        """Whether there is any setting of it, be it right or wrong."""
        return any(key.startswith(self.prefix) and text.strip() for key, text in secrets.items())


CHANNELS = {"email": Channel("SMTP_HOST", "SMTP_"), "webhook": Channel(webhook.SETTING, webhook.SETTING)}


def _occasion(settings: Settings, link: str, secrets: Mapping[str, str], now: datetime) -> Occasion:
    return Occasion(settings.run_id, link, tuple(name for name, channel in CHANNELS.items() if channel.is_there(secrets)), now)


def _waiting(alert: Alert, secrets: Mapping[str, str]) -> Alert:
    """The alert with what it waits for, if that is a channel that is not set up."""
    channel = CHANNELS[alert.channel]
    is_there = channel.is_there(secrets) or alert.status != "PENDING"
    return alert if is_there else replace(alert, reason=f"{channel.setting} is not set")


def _rerouted(known: Iterable[Alert], rules: Rules, secrets: Mapping[str, str]) -> list[Alert]:
    """Alerts that wait for e-mail, derived when no channel was known, go to the webhook if that is what there is by now."""
    chosen = {rule.name for rule in rules.rules if "email" in rule.channels}
    is_webhook_alone = CHANNELS["webhook"].is_there(secrets) and not CHANNELS["email"].is_there(secrets)
    return [
        replace(alert, channel="webhook", recipients=())
        if is_webhook_alone and alert.channel == "email" and alert.status == "PENDING" and alert.rule not in chosen
        else alert
        for alert in known
    ]


def _checked(read: Callable[[Mapping[str, str]], Any], secrets: Mapping[str, str], problems: list[str]) -> Any:
    """What the settings of a channel say; None if they are wrong, which goes to `problems`, or not there."""
    try:
        return read(secrets)
    except UsageError as error:
        problems.append(str(error))
        return None


def _senders(
    smtp: SmtpSettings | None, secrets: Mapping[str, str], name: str, timeout_seconds: float, until_sent: ExitStack, problems: list[str]
) -> dict[str, Callable[[Message], str | None]]:
    """What sends the messages of each channel that is set up, under the name of the pipeline."""
    senders = {}
    if smtp:
        senders["email"] = partial(_mail, until_sent.enter_context(MailServer(smtp, timeout_seconds)), name)
    if url := _checked(webhook.url_of, secrets, problems):
        senders["webhook"] = partial(_post, url, name, timeout_seconds)
    return senders


def _name(settings: Settings) -> str:
    """What tells this pipeline from others in the subject of a mail; on a laptop every catalog is the same."""
    return settings.schema if settings.catalog == "spark_catalog" else f"{settings.catalog}.{settings.schema}"


def _mail(server: MailServer, name: str, message: Message) -> str | None:
    if not message.recipients:
        # Others have recipients of their own, and need not wait.
        raise Temporary("SMTP_TO is not set, and the rule names no recipients: set one of them")
    return server.send(compose(message.message_id, message.alerts, server.settings.sender, message.recipients, name), message.recipients)


def _post(url: str, name: str, timeout_seconds: float, message: Message) -> None:
    webhook.post(url, webhook_text(message.alerts, name), timeout_seconds)


def _settle(
    spark: SparkSession, settings: Settings, known: list[Alert], journal: Journal
) -> tuple[list[Alert], Mapping[str, Collection[str]]]:
    """Take down what a run that was killed had sent; returns the alerts as they are now, and the messages that may have been taken."""
    begun, sent = journal.read()
    message_of = {alert_id: message_id for message_id, ids in sent.items() for alert_id in ids}
    settled = {}
    for alert in known:
        if alert.status == "PENDING" and (message_id := message_of.get(alert.alert_id)):
            done = {"status": "SENT", "sent_at": datetime.now(UTC), "message_id": message_id}
            settled[alert.alert_id] = replace(alert, attempts=alert.attempts + 1, **done)
    outbox.update(spark, settings, list(settled.values()))
    waiting = {alert.alert_id for alert in known if alert.status == "PENDING" and alert.alert_id not in settled}
    for message_id in [*sent, *(message_id for message_id, ids in begun.items() if waiting.isdisjoint(ids))]:
        journal.forget(message_id)
    return [settled.get(alert.alert_id, alert) for alert in known], begun


def _read_cursor(file: Path, now: datetime, known: Iterable[Alert]) -> datetime | None:
    """Up to which look findings became alerts; None if the file is missing, or says what cannot be, such as a newest alert that
    the table lacks: it was put back to an earlier state, or lost its newest commit.

    It saves reading: deriving an alert twice adds nothing.
    """
    try:
        until, *newest = (datetime.fromisoformat(line).astimezone(UTC) for line in file.read_text(encoding="utf-8").splitlines())
    except (OSError, ValueError, OverflowError):
        return None
    is_behind = newest and newest[0] > max((alert.created_at for alert in known), default=datetime.min.replace(tzinfo=UTC))
    return until if until <= now and not is_behind else None


def _write_cursor(file: Path, run_time: datetime, known: Iterable[Alert]) -> None:
    newest = max((alert.created_at for alert in known), default=None)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(time.isoformat() for time in (run_time, newest) if time), encoding="utf-8")
