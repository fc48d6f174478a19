"""What would keep a run from working here? Each part is asked as a run would ask it, and nothing is changed but the cache."""

import os
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from laptop.bundle.load import load_bundle
from laptop.env import read_secrets
from laptop.run import config_settings
from laptop.services.broker import Broker
from laptop.services.jars import broker_jars, spark_jars
from laptop.services.java import java_home
from streaming_pipeline.alerts.deliver import Temporary
from streaming_pipeline.alerts.rules import load_rules
from streaming_pipeline.alerts.smtp import MailServer, SmtpSettings
from streaming_pipeline.alerts.webhook import url_of
from streaming_pipeline.core.contract import load_contract
from streaming_pipeline.core.errors import PipelineError
from streaming_pipeline.core.prices import load_prices
from streaming_pipeline.core.settings import KafkaSettings
from streaming_pipeline.core.wording import plural
from streaming_pipeline.kafka.connection import check_connection

LEAST_FREE = 5 * 2**30
"""Bytes of a disk; a demo takes a fifth of it."""


FOLDERS = ("broker", "checkpoints", "logs", "mlflow", "runs", "warehouse")
"""What a home may hold."""


@dataclass(frozen=True)
class Remark:
    """One part, whether it is as it should be, and what is to be said of it."""

    part: str
    is_well: bool
    text: str


def examine(home: Path, root: Path) -> Iterator[Remark]:
    """Look at the machine, the bundle in `root`, the home folder, and what `.env` and the environment name, one after the other."""
    config = cache(partial(config_settings, home, root))
    own = lambda path: "" if Path(path).parent == root / "config" else f" ({path})"  # noqa: E731
    secrets = cache(partial(read_secrets, root / ".env"))
    parts: dict[str, Callable[[], str]] = {
        "Java": lambda: str(java_home()),
        "jars": lambda: f"{len(spark_jars())} for Spark, {len(broker_jars())} for the broker, all there",
        "home folder": partial(_home, home),
        "bundle": lambda: f"{len(load_bundle(root, local_home=home.resolve()).jobs)} jobs",
        "event_contract.yml": lambda: _fields(config().contract_path) + own(config().contract_path),
        "alert_rules.yml": lambda: f"{len(load_rules(config().alert_rules_path).rules)} rules" + own(config().alert_rules_path),
        "prices.yml": lambda: f"{len(load_prices(config().prices_path).machines)} machines" + own(config().prices_path),
        ".env": lambda: _kept_private(root / ".env", secrets()),
        "Kafka": lambda: _kafka(home, secrets()),
        "mail": lambda: _mail(secrets()),
        "webhook": lambda: _webhook(secrets()),
    }
    for part, look in parts.items():
        try:
            yield Remark(part, True, look())
        except (PipelineError, Temporary) as error:
            yield Remark(part, False, str(error))


def _fields(contract: str) -> str:
    return ", ".join(field.name for field in load_contract(contract).fields)


def _home(home: Path) -> str:
    place = home.resolve()
    existing = next(folder for folder in (place, *place.parents) if folder.exists())
    if not os.access(existing, os.W_OK):
        raise PipelineError(f"{existing} cannot be written: name another --home.")
    for held in (place / name for name in FOLDERS):
        if held.exists() and not (held.is_dir() and os.access(held, os.W_OK)):
            what = "cannot be written" if held.is_dir() else "is no folder, and a run wants one there"
            raise PipelineError(f"{held} {what}: move it away, or name another --home.")
    free = shutil.disk_usage(existing).free
    if free < LEAST_FREE:
        raise PipelineError(f"{place} has {free / 2**30:.1f} GiB left: make room, or name another --home.")
    tables = len(list(place.glob("warehouse/*.db/*/_delta_log")))
    return f"{place}, {tables} tables, {free / 2**30:.0f} GiB free"


def _kept_private(env_file: Path, secrets: Mapping[str, str]) -> str:
    """Whether `.env`, and the private key that it names, are for their owner alone."""
    files = [env_file, *(Path(secrets[key]) for key in ("KAFKA_SSL_KEY_LOCATION",) if key in secrets)]
    if shared := [file for file in files if file.is_file() and file.stat().st_mode & 0o077]:
        names = " ".join(shlex.quote(str(file)) for file in shared)
        raise PipelineError(f"Other users of this machine may read secrets: chmod 600 {names}")
    return f"{env_file}, for its owner alone" if env_file.is_file() else "none: the local broker is used, and environment variables"


def _kafka(home: Path, secrets: Mapping[str, str]) -> str:
    if secrets.get("KAFKA_BOOTSTRAP_SERVERS"):
        kafka = KafkaSettings.from_secrets(secrets)
        topic = check_connection(kafka)
        return f"{kafka.bootstrap_servers} by {kafka.security_protocol}: topic {topic.topic}, {plural(len(topic.partitions), 'partition')}"
    status = Broker(home).status()
    if status.state == "crashed":
        raise PipelineError(
            f"The local broker ended without being stopped: `streaming-pipeline broker start` starts it again. {status.log_tail}"
        )
    if status.state == "running":
        return f"the local broker, running, ports {', '.join(f'{port} ({name})' for name, port in (status.ports or {}).items())}"
    return "the local broker, stopped: each command that needs it starts it"


def _mail(secrets: Mapping[str, str]) -> str:
    smtp = SmtpSettings.from_secrets(secrets)
    if smtp is None:
        return "no SMTP_HOST: alerts wait in alert_outbox"
    with MailServer(smtp) as server:
        server.connect()
    if not smtp.recipients:
        raise PipelineError("SMTP_TO is not set: only rules of alert_rules.yml that name recipients can send mail.")
    return f"{smtp.place} takes {'a log-in' if smtp.username else 'mails'} by {smtp.security}, for {', '.join(smtp.recipients)}"


def _webhook(secrets: Mapping[str, str]) -> str:
    return "set; it is used when there is an alert" if url_of(secrets) else "no ALERT_WEBHOOK_URL"
