"""How to connect to Kafka: options for Spark's source, configuration for Python clients, and a check that says what is wrong.

A Kafka client that cannot connect goes on trying for minutes and says little, Spark's above all; so a run asks for the topic first.
"""

import json
import logging
import os
import re
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from streaming_pipeline.core.errors import PipelineError
from streaming_pipeline.core.settings import SERVICE_CREDENTIAL, KafkaSettings
from streaming_pipeline.kafka import pem

_LOGIN_MODULE = "org.apache.kafka.common.security.plain.PlainLoginModule"
_SILENT = logging.getLogger("streaming_pipeline.kafka.connection.librdkafka")
_SILENT.addHandler(logging.NullHandler())
_SILENT.propagate = False


@dataclass(frozen=True)
class TopicInfo:
    """What the broker says of a topic; `topic_id` is Kafka's own id, so that a topic made again under its name is another one."""

    topic: str
    topic_id: str
    partitions: tuple[int, ...]


@dataclass(frozen=True)
class TopicOffsets:
    """A topic and, per partition, the offset of its first record and the one behind the last that `read_committed` readers see."""

    info: TopicInfo
    beginnings: dict[int, int]
    ends: dict[int, int]


def spark_options(kafka: KafkaSettings) -> dict[str, str]:
    """The options of Spark's Kafka source for this connection; `kafka.options` come last and win.

    Certificates and key are read here and handed on as text, so that no executor needs the files. Raises `PipelineError` naming
    the setting whose file cannot be used.
    """
    options = {
        "kafka.bootstrap.servers": kafka.bootstrap_servers,
        "subscribe": kafka.topic,
        "kafka.isolation.level": "read_committed",
        # A broker that is back within half a minute is waited for, one that is gone is told of within a minute, or little more. Each
        # limit alone must outlast the restart. Spark's own are 120 s for records, then 60 s for an offset, and three times 60 s.
        "kafkaConsumer.pollTimeoutMs": "40000",
        "kafka.default.api.timeout.ms": "40000",
        "fetchOffset.numRetries": "1",
        # Kafka answers one request of a connection at a time. A reader that has got all there is has asked for more already, and Spark's
        # next question, for the ends of the partition, waits for that: twice half a second, Kafka's own value, for each small batch.
        "kafka.fetch.max.wait.ms": "5",
    }
    if SERVICE_CREDENTIAL not in kafka.options:
        options |= {f"kafka.{key}": value for key, value in _java_security(kafka).items()}
    return options | dict(kafka.options)


def range_options(kafka: KafkaSettings, topic: TopicInfo, ranges: Mapping[int, tuple[int, int]]) -> dict[str, str]:
    """The options of a batch read of these offsets: partition → the first, and the one behind the last.

    Spark wants a range for every partition; an empty one stands for those that are not asked for.
    """
    places = {partition: ranges.get(partition, (0, 0)) for partition in topic.partitions}
    starts, ends = ({partition: place[side] for partition, place in places.items()} for side in (0, 1))
    offsets = {"startingOffsets": json.dumps({topic.topic: starts}), "endingOffsets": json.dumps({topic.topic: ends})}
    return spark_options(kafka) | offsets


def _java_security(kafka: KafkaSettings) -> dict[str, str]:
    """The security settings of a Java client."""
    security = {"security.protocol": kafka.security_protocol}
    if kafka.ssl_ca_location:  # without it: what the machine trusts
        security |= {
            "ssl.truststore.type": "PEM",
            "ssl.truststore.certificates": pem.certificates("KAFKA_SSL_CA_LOCATION", kafka.ssl_ca_location),
        }
    if kafka.security_protocol == "SSL":
        security |= {
            "ssl.keystore.type": "PEM",
            "ssl.keystore.certificate.chain": pem.certificates("KAFKA_SSL_CERTIFICATE_LOCATION", kafka.ssl_certificate_location),
            "ssl.keystore.key": pem.pkcs8_key("KAFKA_SSL_KEY_LOCATION", kafka.ssl_key_location),
        }
    else:
        # Databricks renames the classes of its own Kafka client.
        module = f"kafkashaded.{_LOGIN_MODULE}" if os.environ.get("DATABRICKS_RUNTIME_VERSION") else _LOGIN_MODULE
        security |= {
            "sasl.mechanism": "PLAIN",
            "sasl.jaas.config": jaas_config({"username": kafka.api_key or "", "password": kafka.api_secret or ""}, module),
        }
    return security


def jaas_config(values: Mapping[str, str], module: str = _LOGIN_MODULE) -> str:
    """A JAAS line for the PLAIN mechanism; any character may stand in the values."""
    return f"{module} required " + " ".join(f"{name}={_java_quoted(value)}" for name, value in values.items()) + ";"


def _java_quoted(text: str) -> str:
    escapes = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r"}
    return '"' + "".join(escapes.get(character, character) for character in text) + '"'


def client_config(kafka: KafkaSettings) -> dict[str, Any]:
    """The configuration of a confluent-kafka producer, consumer or admin client for this connection.

    librdkafka prints nothing to stderr by itself; who wants its errors gives an `error_cb`.
    """
    config = {
        "bootstrap.servers": kafka.bootstrap_servers,
        "security.protocol": kafka.security_protocol,
        "ssl.ca.location": kafka.ssl_ca_location,  # without it: what the machine trusts
        "ssl.certificate.location": kafka.ssl_certificate_location,
        "ssl.key.location": kafka.ssl_key_location,
        "log_level": 0,
    }
    if kafka.security_protocol == "SASL_SSL":
        config |= {"sasl.mechanism": "PLAIN", "sasl.username": kafka.api_key, "sasl.password": kafka.api_secret}
    return {key: value for key, value in config.items() if value is not None}


def check_connection(kafka: KafkaSettings, timeout_seconds: float = 10) -> TopicInfo:
    """Connect once and ask for the topic.

    Raises `PipelineError` within the timeout (and a second), naming the setting to look at: a PEM file, the address, the
    certificates, the API key or the topic. A connection by `databricks.serviceCredential` can be made by Spark only and is not checked.
    """
    if SERVICE_CREDENTIAL in kafka.options:
        return TopicInfo(kafka.topic, unknown_id(kafka.topic), ())
    return _Connection(kafka, timeout_seconds).topic_info()


def topic_offsets(kafka: KafkaSettings, timeout_seconds: float = 10, since: datetime | None = None) -> TopicOffsets:
    """Connect once and ask for the topic and where its partitions begin and end; with a service credential there are no partitions.

    With `since` the beginnings are those of the first record that is not older; the end where there is none.
    Raises `PipelineError` as `check_connection` does.
    """
    if SERVICE_CREDENTIAL in kafka.options:
        return TopicOffsets(check_connection(kafka), {}, {})
    broker = _Connection(kafka, timeout_seconds)
    info = broker.topic_info()
    ends = broker.offsets(info.partitions, latest=True)
    begins = broker.offsets(info.partitions, since=since)
    return TopicOffsets(info, {partition: ends[partition] if begin < 0 else begin for partition, begin in begins.items()}, ends)


def unknown_id(topic: str) -> str:
    """What stands for the id of a topic that cannot be asked for it, or has none."""
    return f"unknown-{topic}"


class _Connection:
    """One connection that asks a few questions within one time limit, and knows why when there is no answer."""

    def __init__(self, kafka: KafkaSettings, timeout_seconds: float) -> None:
        pem.check_files(kafka)
        try:
            from confluent_kafka.admin import AdminClient
        except ImportError as error:
            raise PipelineError(
                f"The Python package confluent-kafka is missing ({error}): install it, or add it to the job's libraries."
            ) from None
        from confluent_kafka import KafkaException

        self._kafka = kafka
        self._deadline = time.monotonic() + timeout_seconds
        self._timeout_seconds = timeout_seconds
        self._errors: list[Any] = []
        config = client_config(kafka) | {
            "error_cb": self._errors.append,
            "socket.connection.setup.timeout.ms": int(timeout_seconds * 1000) + 5000,  # our own limit comes first and says why
        }
        try:
            self._admin = AdminClient(config, logger=_SILENT)
        except (KafkaException, ValueError) as error:
            raise PipelineError(f"The Kafka client refuses its settings ({_text(error)}): look at the KAFKA_… settings.") from None

    def topic_info(self) -> TopicInfo:
        from confluent_kafka import KafkaError, KafkaException, TopicCollection

        topic = self._kafka.topic
        try:
            asked = lambda: self._admin.describe_topics(TopicCollection([topic]), request_timeout=self._left())[topic]  # noqa: E731
            described = self._answer(asked)
        except KafkaException as error:
            if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise PipelineError(self._missing_topic()) from None
            raise self._refused(error) from None
        partitions = tuple(sorted(partition.id for partition in described.partitions))
        topic_id = str(described.topic_id).translate(str.maketrans("+/", "-_"))  # as Kafka's own tools write it
        if not topic_id.strip("A="):  # all zero: this broker gives its topics no ids, and they must not be taken for one another
            topic_id = unknown_id(topic)
        return TopicInfo(topic, topic_id, partitions)

    def offsets(self, partitions: tuple[int, ...], latest: bool = False, since: datetime | None = None) -> dict[int, int]:
        """The first offset of each partition, the one behind the last, or that of the first record since then (-1: none)."""
        from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicPartition
        from confluent_kafka.admin import OffsetSpec

        spec = OffsetSpec.latest() if latest else OffsetSpec.earliest()
        if since:
            spec = OffsetSpec.for_timestamp(max(0, int(since.timestamp() * 1000)))  # to Kafka, -1 is the newest
        # A partition's leader has just changed, or the topic has just been made: the broker that answers does not know yet.
        passing = (KafkaError.UNKNOWN_LEADER_EPOCH, KafkaError.FENCED_LEADER_EPOCH, KafkaError.NOT_LEADER_FOR_PARTITION)
        while True:
            try:
                futures = self._admin.list_offsets(
                    {TopicPartition(self._kafka.topic, partition): spec for partition in partitions},
                    isolation_level=IsolationLevel.READ_COMMITTED,
                    request_timeout=self._left(),
                )
                return {key.partition: self._answer(lambda future=future: future).offset for key, future in futures.items()}
            except KafkaException as error:
                if error.args[0].code() not in passing or time.monotonic() >= self._deadline:
                    raise self._refused(error) from None
                self._admin.poll(0.2)

    def _left(self) -> float:
        """Seconds for the client's own time limits: a little more than there is, so that our own comes first and says why."""
        return max(0.0, self._deadline - time.monotonic()) + 1

    def _answer(self, ask: Callable[[], Future]) -> Any:
        """The answer to a question, or the cause why there will be none, as soon as it is known."""
        from confluent_kafka import KafkaError, KafkaException

        future = ask()
        # Errors that trying again will not heal; the others are looked at when no server is left, or no time.
        final = (KafkaError._SSL, KafkaError._AUTHENTICATION, KafkaError._ALL_BROKERS_DOWN)
        while not future.done() and time.monotonic() < self._deadline:
            self._admin.poll(0.05)
            if any(error.code() in final for error in self._errors):
                raise PipelineError(self._cause())
        if not future.done():
            raise PipelineError(self._cause())
        try:
            return future.result()
        except KafkaException as error:
            if error.args[0].code() < 0:  # not the broker's answer, but the client's own error: it got none
                raise PipelineError(self._cause()) from None
            raise

    def _cause(self) -> str:
        """One sentence on why there is no connection: which setting, what was wrong, what to do."""
        from confluent_kafka import KafkaError

        kafka, servers = self._kafka, f"KAFKA_BOOTSTRAP_SERVERS={self._kafka.bootstrap_servers}"
        causes = [error for error in self._errors if error.code() != KafkaError._ALL_BROKERS_DOWN]
        said = _text(causes[-1]) if causes else "it hangs up" if self._errors else f"no answer within {self._timeout_seconds:g} s"
        lower = " ".join(_text(cause) for cause in causes).lower()
        if "certificate verify failed" in lower:
            why = _why_unverified(said, kafka.ssl_ca_location) or said
            if "mismatch" in why:
                return f"{servers}: the broker's certificate is for another host: use the name it was issued for ({why})."
            if "expired" in why:
                return f"{servers}: the broker's own certificate has expired: whoever runs it must renew it ({why})."
            who = f"={kafka.ssl_ca_location}" if kafka.ssl_ca_location else " is not set, and what this machine trusts"
            return f"KAFKA_SSL_CA_LOCATION{who} does not vouch for the broker's certificate: give its authority's PEM file ({why})."
        if "alert" in lower and kafka.security_protocol == "SSL":
            return (
                f"KAFKA_SSL_CERTIFICATE_LOCATION={kafka.ssl_certificate_location}: the broker refuses this client certificate "
                f"(expired, or of an authority that it does not trust): get a new one ({said})."
            )
        if "alert" in lower or "security.protocol" in lower or "ssl handshake failed" in lower or (self._errors and not causes):
            return (
                f"KAFKA_SECURITY_PROTOCOL={kafka.security_protocol}: the broker at {kafka.bootstrap_servers} does not speak it: "
                f"SSL is for a client certificate, SASL_SSL for an API key ({said})."
            )
        if any(error.code() == KafkaError._AUTHENTICATION for error in causes):
            return f"KAFKA_API_KEY or KAFKA_API_SECRET is wrong: the broker refuses the login ({said})."
        if any(error.code() == KafkaError._RESOLVE for error in causes):
            return f"{servers}: the host name is not known: check its spelling, and your network ({said})."
        return f"{servers}: no connection: check host, port, network and firewall ({said})."

    def _missing_topic(self) -> str:
        topics = self._admin.list_topics(timeout=self._left()).topics
        names = sorted(name for name in topics if not name.startswith("__"))
        known = f"there are {', '.join(names[:10])}{' …' if len(names) > 10 else ''}" if names else "there are no topics that you may see"
        return f"KAFKA_TOPIC={self._kafka.topic}: the broker has no such topic ({known}): create it, or name another."

    def _refused(self, error: Exception) -> PipelineError:
        """The broker answered, and the answer was no."""
        return PipelineError(
            f"KAFKA_TOPIC={self._kafka.topic}: the broker refuses to tell about it ({_text(error)}): check what this login may read."
        )


def _text(error: Any) -> str:
    """librdkafka's own words for an error, on one line; it does not put secrets into them."""
    if isinstance(error, Exception) and error.args and hasattr(error.args[0], "str"):
        error = error.args[0]
    return " ".join((error.str() if hasattr(error, "str") else str(error)).split())


def _why_unverified(said: str, ca_location: str | None) -> str | None:
    """What is wrong with a broker's certificate; librdkafka does not tell another host's from one of an unknown authority."""
    server = re.search(r"ssl://(.+):(\d+)/", said)
    if not server:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if ca_location:
        context.load_verify_locations(ca_location)
    else:
        context.load_default_certs()
    host = server[1].strip("[]")
    try:
        with socket.create_connection((host, int(server[2])), timeout=2) as plain:
            context.wrap_socket(plain, server_hostname=host).close()
    except ssl.SSLCertVerificationError as error:
        return error.verify_message
    except OSError:
        return None
    return None
