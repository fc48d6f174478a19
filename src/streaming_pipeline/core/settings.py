"""Job parameters and secrets → one frozen, validated `Settings` object.

On Databricks the parameters are the notebook's widgets and the secrets come from a secret scope; on a laptop the runner offers
the same widgets, and the secrets come from `.env`. Everything behind this door is checked, so that stages need not ask again.
"""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from datetime import UTC, datetime
from typing import Any

from streaming_pipeline.core.errors import UsageError

SECRET_KEYS = (
    "KAFKA_BOOTSTRAP_SERVERS",
    "KAFKA_SECURITY_PROTOCOL",
    "KAFKA_API_KEY",
    "KAFKA_API_SECRET",
    "KAFKA_SSL_CA_LOCATION",
    "KAFKA_SSL_CERTIFICATE_LOCATION",
    "KAFKA_SSL_KEY_LOCATION",
    "KAFKA_TOPIC",
    "SMTP_HOST",
    "SMTP_PORT",
    "SMTP_SECURITY",
    "SMTP_SSL_CA_LOCATION",
    "SMTP_USERNAME",
    "SMTP_PASSWORD",
    "SMTP_FROM",
    "SMTP_TO",
    "ALERT_WEBHOOK_URL",
)
"""What the secret scope, or `.env`, may hold; the names are the same in both."""

_HIDDEN_KEYS = ("KAFKA_API_KEY", "KAFKA_API_SECRET", "SMTP_USERNAME", "SMTP_PASSWORD", "ALERT_WEBHOOK_URL")
PLAIN_KEYS = frozenset(SECRET_KEYS) - set(_HIDDEN_KEYS)
"""Those of them that may be shown: a message that hides the wrong host or topic helps nobody."""

DEFAULT_TOPIC = "stream-input"
# Where a read begins and ends, of which topic and where, and how one logs in. Spark does not mind the case of an option.
_OUR_OPTION = re.compile(
    r"(?i)subscribe(pattern)?|assign|(starting|ending)\w+|maxOffsetsPerTrigger"
    r"|kafka\.(bootstrap\.servers|security\.protocol|ssl\..*|sasl\..*|isolation\.level|(key|value)\.deserializer|enable\.auto\.commit)"
)
SERVICE_CREDENTIAL = "databricks.serviceCredential"
"""The source option that makes Databricks log in for us; only Spark can use such a connection."""
_PROTOCOLS = ("SSL", "SASL_SSL")
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,249}")  # a folder's name has at most 255 characters
_TOPIC = re.compile(r"(?!\.{1,2}\Z)[A-Za-z0-9._-]{1,249}")
_RUN_ID = re.compile(r"(?!.*\.\.)[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}")
_URI = re.compile(r"\w{2,}:")  # Spark would read dbfs:/ and s3:/, and Python take them for names of folders
_LARGEST = 2**63 - 1  # of the whole numbers of Spark, which is handed them


@dataclass(frozen=True)
class KafkaSettings:
    """How to reach one Kafka topic: mTLS (`SSL` with three PEM files) or API key (`SASL_SSL`, as Confluent Cloud has it)."""

    bootstrap_servers: str
    security_protocol: str
    topic: str = DEFAULT_TOPIC
    ssl_ca_location: str | None = None
    ssl_certificate_location: str | None = None
    ssl_key_location: str | None = None
    api_key: str | None = field(default=None, repr=False)
    api_secret: str | None = field(default=None, repr=False)
    options: Mapping[str, str] = field(default_factory=dict)
    """Further options for Spark's Kafka source, handed on as they are (`groupIdPrefix`, `databricks.serviceCredential`)."""

    @classmethod
    def from_secrets(cls, secrets: Mapping[str, str], topic: str = "", options: Mapping[str, str] | None = None) -> "KafkaSettings":
        """Read the `KAFKA_*` keys of `secrets`; `topic`, if given, wins over `KAFKA_TOPIC`.

        Raises `UsageError` naming the first key that is missing or wrong.
        """

        def get(key: str) -> str | None:
            return (secrets.get(key) or "").strip() or None

        options = dict(options or {})
        servers = get("KAFKA_BOOTSTRAP_SERVERS")
        if not servers:
            raise UsageError("KAFKA_BOOTSTRAP_SERVERS is not set: put host:port of your Kafka into .env or the secret scope.")
        for server in servers.split(","):
            host, _, port = server.strip().rpartition(":")
            if not host or not (port.isascii() and port.isdigit()) or not 0 < int(port) < 65536:
                raise UsageError(f"KAFKA_BOOTSTRAP_SERVERS: {server.strip()!r} is not host:port.")
        protocol = (get("KAFKA_SECURITY_PROTOCOL") or ("SASL_SSL" if get("KAFKA_API_KEY") else "SSL")).upper()
        if protocol not in _PROTOCOLS:
            raise UsageError(f"KAFKA_SECURITY_PROTOCOL is {protocol!r}: use SSL (client certificate) or SASL_SSL (API key).")
        if SERVICE_CREDENTIAL not in options:
            needed = (
                ("KAFKA_API_KEY", "KAFKA_API_SECRET")
                if protocol == "SASL_SSL"
                else ("KAFKA_SSL_CA_LOCATION", "KAFKA_SSL_CERTIFICATE_LOCATION", "KAFKA_SSL_KEY_LOCATION")
            )
            missing = [key for key in needed if not get(key)]
            if missing:
                raise UsageError(f"{', '.join(missing)} not set: KAFKA_SECURITY_PROTOCOL={protocol} needs {' and '.join(needed)}.")
        topic = topic or get("KAFKA_TOPIC") or DEFAULT_TOPIC
        check_topic(topic)
        return cls(
            bootstrap_servers=",".join(server.strip() for server in servers.split(",")),
            security_protocol=protocol,
            topic=topic,
            ssl_ca_location=get("KAFKA_SSL_CA_LOCATION"),
            ssl_certificate_location=get("KAFKA_SSL_CERTIFICATE_LOCATION") if protocol == "SSL" else None,
            ssl_key_location=get("KAFKA_SSL_KEY_LOCATION") if protocol == "SSL" else None,
            api_key=get("KAFKA_API_KEY") if protocol == "SASL_SSL" else None,
            api_secret=get("KAFKA_API_SECRET") if protocol == "SASL_SSL" else None,
            options=options,
        )


def _setting(default: Any, meaning: str) -> Any:
    """A field of `Settings`: the parameter's default, which says its type, and what docs/parameters.md says of it."""
    given = {"default_factory": default.copy} if isinstance(default, dict) else {"default": default}
    return field(**given, metadata={"meaning": meaning})


def default_of(setting: Field[Any]) -> Any:
    """The default of a field of `Settings`; None if it has none."""
    if setting.default_factory is not MISSING:
        return setting.default_factory()
    return None if setting.default is MISSING else setting.default


@dataclass(frozen=True)
class Settings:
    """The parameters of a job run, and its secrets. Each other field is a job parameter of the same name; docs/parameters.md lists them."""

    catalog: str
    schema: str = _setting("streaming", "schema of all tables")
    config_dir: str = _setting(
        "../config",
        "folder of the event contract, the alert rules and the prices; of several, the first that has a file",
    )
    checkpoint_dir: str = _setting("", "folder of the streams' checkpoints; empty: the volume `checkpoints` of the schema")
    runs_dir: str = _setting("", "folder of what runs leave behind; empty: the volume `runs` of the schema")
    run_id: str = _setting("by-hand", "names this run in the log tables")
    secret_scope: str = _setting("streaming-pipeline", "secret scope that holds the `KAFKA_…`, `SMTP_…` and `ALERT_…` settings")
    kafka_topic: str = _setting("", "topic; empty: `KAFKA_TOPIC` of the secret scope, else `stream-input`")
    kafka_options: Mapping[str, str] = _setting({}, "further options of Spark's Kafka source, as JSON")
    max_offsets_per_trigger: int = _setting(1_000_000, "how many records a micro-batch may have at most")
    dedupe_window_days: int = _setting(1, "a re-delivery is found this many days around its event's date")
    late_after_seconds: int = _setting(300, "an event that reaches Kafka later than this is late")
    freshness_limit_seconds: int = _setting(7200, "if the newest event is older than this, the pipeline is Unhealthy")
    window_minutes: int = _setting(60, "length of the windows that are profiled and compared")
    baseline_windows: int = _setting(
        72, "how many clean windows, the first of the stream, make the baseline that drift is measured against"
    )
    rejected_limit_pct: float = _setting(5.0, "if a larger share of the new records is rejected (in per cent), that is a finding")
    repeated_limit_pct: float = _setting(20.0, "if a larger share of the new records is repeated (in per cent), that is a finding")
    model_name: str = _setting("iforest_silver_anomaly_detector", "the registered model, in catalog and schema")
    experiment: str = _setting("/Shared/streaming-pipeline", "MLflow experiment of the trainings")
    features: tuple[str, ...] = _setting((), "the model's inputs; empty: every number of the event contract, and `timestamp_unix`")
    contamination: float = _setting(0.001, "share of usual events that the model may flag")
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, str], secrets: Mapping[str, str] | None = None) -> "Settings":
        """Texts, as widgets hold them, → settings; an empty text means the default. Raises `UsageError` naming the parameter."""
        known = {f.name: f for f in fields(cls) if f.name != "secrets"}
        values: dict[str, Any] = {}
        for name, text in parameters.items():
            if name not in known:
                raise UsageError(f"Parameter {name!r} is not known. Known parameters: {', '.join(sorted(known))}.")
            if str(text).strip():
                values[name] = convert(name, default_of(known[name]), str(text).strip())
        if "catalog" not in values:
            raise UsageError("Parameter 'catalog' is empty: give the Unity Catalog name (spark_catalog on a laptop).")
        return cls(**values, secrets=dict(secrets or {}))

    def __post_init__(self) -> None:
        for name, volume in (("checkpoint_dir", "checkpoints"), ("runs_dir", "runs")):
            if not getattr(self, name):
                object.__setattr__(self, name, f"/Volumes/{self.catalog}/{self.schema}/{volume}")
            if _URI.match(getattr(self, name)):
                raise UsageError(f"Parameter {name!r} is {getattr(self, name)!r}: give a path, such as /Volumes/main/streaming/{volume}.")
        for name in ("catalog", "schema", "model_name"):
            if not _IDENTIFIER.fullmatch(getattr(self, name)):
                raise UsageError(f"Parameter {name!r} is {getattr(self, name)!r}: use letters, digits, '_' and '-' only, 250 at most.")
        if not _RUN_ID.fullmatch(self.run_id):
            raise UsageError(
                f"Parameter 'run_id' is {self.run_id!r}, but names a folder: use letters, digits, '_', '-' and '.', and no '..'."
            )
        if self.kafka_topic:
            check_topic(self.kafka_topic, "Parameter 'kafka_topic'")
        for name in ("max_offsets_per_trigger", "late_after_seconds", "freshness_limit_seconds"):
            if not 1 <= getattr(self, name) <= _LARGEST:
                raise UsageError(f"Parameter {name!r} is {getattr(self, name)}: it must be 1 to {_LARGEST}.")
        if not 0 <= self.dedupe_window_days <= 366:
            raise UsageError(f"Parameter 'dedupe_window_days' is {self.dedupe_window_days}: it must be 0 to 366.")
        if not 5 <= self.window_minutes <= 1440 or 1440 % self.window_minutes:
            raise UsageError(f"Parameter 'window_minutes' is {self.window_minutes}: it must be 5 to 1440 and divide a day (1440) evenly.")
        if not 1 <= self.baseline_windows <= 10_000:
            raise UsageError(f"Parameter 'baseline_windows' is {self.baseline_windows}: it must be 1 to 10000.")
        for name in ("rejected_limit_pct", "repeated_limit_pct"):
            if not 0 <= getattr(self, name) <= 100:
                raise UsageError(f"Parameter {name!r} is {getattr(self, name)}: it must be 0 to 100 (per cent).")
        if not 0 < self.contamination <= 0.5:
            raise UsageError(f"Parameter 'contamination' is {self.contamination}: it must be above 0 and at most 0.5.")
        for name in self.features:
            if self.features.count(name) > 1:
                raise UsageError(f"Parameter 'features' names {name!r} twice: name each feature once.")

    def table(self, name: str) -> str:
        """The table's three-level name, quoted for SQL."""
        return f"`{self.catalog}`.`{self.schema}`.`{name}`"

    def config_file(self, name: str) -> str:
        """The file of that name: `config_dir` may be several folders, a line each, of which the first that has it counts."""
        folders = [folder.rstrip("/") for folder in self.config_dir.split("\n")]
        return f"{next((folder for folder in folders if os.path.lexists(f'{folder}/{name}')), folders[-1])}/{name}"

    @property
    def contract_path(self) -> str:
        """The file of the event contract."""
        return self.config_file("event_contract.yml")

    @property
    def alert_rules_path(self) -> str:
        """The file of the alert rules."""
        return self.config_file("alert_rules.yml")

    @property
    def prices_path(self) -> str:
        """The price list of machines."""
        return self.config_file("prices.yml")

    @property
    def model_full_name(self) -> str:
        """The registered model's three-level name."""
        return f"{self.catalog}.{self.schema}.{self.model_name}"

    @property
    def kafka(self) -> KafkaSettings:
        """The Kafka connection of this run; raises `UsageError` where it is incomplete."""
        return KafkaSettings.from_secrets(self.secrets, self.kafka_topic, self.kafka_options)

    def checkpoint(self, stream: str) -> str:
        """The checkpoint folder of one stream; every stream of every schema owns one."""
        return f"{self.checkpoint_dir.rstrip('/')}/{self.schema}/{stream}"

    @property
    def run_dir(self) -> str:
        """The folder that keeps what one run leaves for people to read."""
        return f"{self.runs_dir.rstrip('/')}/{self.run_id}"


def read_secrets(dbutils: Any, scope: str, prefix: str | tuple[str, ...]) -> dict[str, str]:
    """What a secret scope holds of the known keys that begin so. Raises `UsageError` for a scope that cannot be read."""
    try:
        held = {secret.key for secret in dbutils.secrets.list(scope)}
        # Put from a file or a pipe a secret ends with that one's newline, which is no part of a password.
        return {key: dbutils.secrets.get(scope, key).rstrip("\r\n") for key in SECRET_KEYS if key.startswith(prefix) and key in held}
    except Exception as error:  # the workspace has many ways to say that a scope is missing or not for this user
        raise UsageError(
            f"Parameter 'secret_scope': the scope {scope!r} cannot be read ({type(error).__name__}). "
            "Check its name and that you may read it; `databricks secrets list-scopes` shows what there is."
        ) from error


def check_topic(name: str, setting: str = "KAFKA_TOPIC") -> None:
    """Raise `UsageError` naming `setting` unless Kafka could have a topic of this name."""
    if not _TOPIC.fullmatch(name):
        raise UsageError(
            f"{setting} {name!r} is not a topic name: letters, digits, '.', '_' and '-' only, 249 at most, and not '.' or '..'."
        )


def convert(name: str, default: Any, text: str) -> Any:
    """One parameter's text as the type of its default. Raises `UsageError` naming the parameter."""
    if isinstance(default, Mapping):
        try:
            options = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UsageError(f'Parameter {name!r} is not JSON ({error}): write {{"groupIdPrefix": "team-"}}.') from None
        if not isinstance(options, dict) or not all(isinstance(value, str) for value in options.values()):
            raise UsageError('Parameter \'kafka_options\' must be a JSON object of texts, such as {"groupIdPrefix": "team-"}.')
        ours = sorted(filter(_OUR_OPTION.fullmatch, options))
        if ours:
            raise UsageError(
                f"Parameter 'kafka_options' sets {', '.join(ours)}: that is for bronze, another parameter or the KAFKA_ secrets to decide."
            )
        return options
    if isinstance(default, tuple):
        return tuple(part.strip() for part in text.split(",") if part.strip())
    if isinstance(default, bool):
        if text.lower() not in ("true", "false"):
            raise UsageError(f"Parameter {name!r} is {text!r}: it must be true or false.")
        return text.lower() == "true"
    if isinstance(default, int | float):
        try:
            return type(default)(text)
        except ValueError:
            kind = "a whole number" if isinstance(default, int) else "a number"
            raise UsageError(f"Parameter {name!r} is {text!r}: it must be {kind}.") from None
    return text


def parse_time(name: str, text: str) -> datetime | None:
    """A parameter's text, such as 2026-03-01T00:00:00Z, as a time; None if it is empty. Without a zone it is UTC.

    Raises `UsageError` naming the parameter.
    """
    if not text.strip():
        return None
    try:
        time = datetime.fromisoformat(text.strip())
        return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    except (ValueError, OverflowError):  # the latter behind an end of the calendar, once it is UTC
        raise UsageError(f"Parameter {name!r} is {text!r}: it must be a time such as 2026-03-01T00:00:00Z.") from None


def parse_period(begin: str, end: str) -> tuple[datetime | None, datetime | None]:
    """The parameters `from_time` and `until_time` as times; None for one that is empty.

    Raises `UsageError` naming the one that cannot be used.
    """
    since, until = parse_time("from_time", begin), parse_time("until_time", end)
    if since and until and since >= until:
        raise UsageError(f"Parameter 'until_time' is {end!r}: it must be later than from_time, {begin}.")
    return since, until
