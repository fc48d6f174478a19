"""A real Kafka broker on this machine: one JVM, TLS only, bound to 127.0.0.1, its data kept under the home folder.

Two listeners: `SSL` wants a client certificate (mTLS), `SASL_SSL` a user and a password (as Confluent Cloud has it).
"""

import atexit
import hashlib
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from laptop.services.certificates import Certificates, ensure_certificates
from laptop.services.jars import broker_jars
from laptop.services.java import java_home
from streaming_pipeline.core.errors import PipelineError
from streaming_pipeline.core.settings import DEFAULT_TOPIC, KafkaSettings
from streaming_pipeline.kafka.connection import client_config, jaas_config

HOST = "127.0.0.1"
LISTENERS = ("SSL", "SASL_SSL", "CONTROLLER")
START_SECONDS = 90
"""How long a start may take; about 4 s are usual, a busy machine takes longer."""
STOP_SECONDS = 20

_PROPERTIES = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "log.dirs": "data",
    "listener.security.protocol.map": "SSL:SSL,SASL_SSL:SASL_SSL,CONTROLLER:SSL",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "SSL",
    "ssl.keystore.type": "PEM",
    "ssl.keystore.location": "certificates/server.pem",
    "ssl.truststore.type": "PEM",
    "ssl.truststore.location": "certificates/ca.pem",
    "listener.name.ssl.ssl.client.auth": "required",
    "listener.name.controller.ssl.client.auth": "required",
    "listener.name.sasl_ssl.ssl.client.auth": "none",
    "sasl.enabled.mechanisms": "PLAIN",
    "auto.create.topics.enable": "false",  # a misspelt topic is an error here, too
    "num.partitions": "3",
    "log.retention.ms": "-1",  # synthetic events are older than any retention, and a backfill wants to read them again
    "message.max.bytes": "2097152",
    # One broker: nothing can be replicated, and few partitions of the internal topics make it start and stop quickly.
    "default.replication.factor": "1",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "1",
    "group.initial.rebalance.delay.ms": "0",
    "num.network.threads": "2",
    "num.io.threads": "4",
    "broker.session.timeout.ms": "4000",  # as long does a start wait that follows a crash
    "broker.heartbeat.interval.ms": "1000",
    "log.cleaner.dedupe.buffer.size": "16777216",
}
"""All paths are relative to the folder the broker starts in, so that any character may stand in its own path."""


@dataclass(frozen=True)
class BrokerStatus:
    """What is known of a broker; `log_tail` holds the log's last lines where it crashed."""

    state: str
    """running | stopped | crashed"""
    pid: int | None = None
    ports: dict[str, int] | None = None
    since: datetime | None = None
    log_tail: str = ""


class Broker:
    """The broker of one home folder; several objects and processes may hold it, the state is in the folder."""

    def __init__(self, home: Path, heap: str = "512m") -> None:
        """`home` is the home folder (the broker's own is `home/broker`); `heap` is the JVM's, as Java writes it."""
        self.folder = Path(home).resolve() / "broker"
        self.heap = heap
        # On the JVM's command line: by it a process is known to be this broker, though its pid may be another process's one day.
        self._mark = f"-Dstreaming.pipeline.broker={hashlib.sha256(os.fsencode(self.folder)).hexdigest()[:16]}"
        self._process: subprocess.Popen | None = None
        self._leash: subprocess.Popen | None = None

    @property
    def log(self) -> Path:
        return self.folder / "logs" / "broker.log"

    def start(self, owned: bool = False) -> bool:
        """Start the broker unless it runs already; return, when clients can use it, whether this call has started it.

        `owned`: the broker ends with this process, in whatever way that ends; else it stays until `stop`.
        Raises `PipelineError` where it cannot be started.
        """
        with self._lock():
            pid = self._pid()
            if pid:
                self._wait_until_ready(pid)  # whoever started it may have been killed before it was
                return False
            ensure_certificates(self.certificates.folder)
            class_path = os.pathsep.join(str(jar) for jar in broker_jars())
            for attempt in (1, 2):
                ports = self._choose_ports()
                self._write_properties(ports)
                self._format_storage(class_path)
                pid = self._launch(class_path, ports, owned)
                try:
                    self._wait_until_ready(pid)
                    return True
                except BaseException as error:
                    self._end(pid)
                    # Somebody else may have taken a port since it was chosen: once, others are tried.
                    stolen = isinstance(error, PipelineError) and "Address already in use" in self._log_tail(200)
                    self._write_state({} if stolen else {"ports": ports})
                    if attempt == 2 or not stolen:
                        raise
        raise AssertionError("not reached")

    def stop(self) -> bool:
        """Stop the broker, if it runs; return whether it did. Its data stay. A broker that does not end in time is killed."""
        if not self.folder.exists():
            return False
        with self._lock():
            pid = self._pid()
            if pid:
                self._end(pid)
            self._write_state({"ports": self._read_state().get("ports")})
            return pid is not None

    def status(self) -> BrokerStatus:
        """Whether the broker runs; `crashed` means that it ended without `stop`."""
        state = self._read_state()
        if not state.get("pid"):
            return BrokerStatus("stopped")
        pid = self._pid()
        since = datetime.fromisoformat(state["since"])
        if pid:
            return BrokerStatus("running", pid, state["ports"], since)
        return BrokerStatus("crashed", None, state["ports"], since, self._log_tail())

    @property
    def certificates(self) -> Certificates:
        """Where its certificates are, and those of the authority that signed them."""
        return Certificates(self.folder / "certificates")

    def secrets(self, protocol: str = "SSL", topic: str = DEFAULT_TOPIC) -> dict[str, str]:
        """The `KAFKA_*` keys, as `.env` would hold them, to reach this broker by `SSL` or `SASL_SSL`. It must be running."""
        ports = self._running_ports()
        certificates = self.certificates
        found = {
            "KAFKA_BOOTSTRAP_SERVERS": f"{HOST}:{ports[protocol]}",
            "KAFKA_SECURITY_PROTOCOL": protocol,
            "KAFKA_TOPIC": topic,
            "KAFKA_SSL_CA_LOCATION": str(certificates.ca),
        }
        if protocol == "SSL":
            return found | {
                "KAFKA_SSL_CERTIFICATE_LOCATION": str(certificates.client_certificate),
                "KAFKA_SSL_KEY_LOCATION": str(certificates.client_key),
            }
        user, password = self._credentials()
        return found | {"KAFKA_API_KEY": user, "KAFKA_API_SECRET": password}

    def kafka_settings(self, protocol: str = "SSL", topic: str = DEFAULT_TOPIC) -> KafkaSettings:
        """The connection to this broker by `SSL` or `SASL_SSL`. It must be running."""
        return KafkaSettings.from_secrets(self.secrets(protocol, topic))

    def create_topic(self, name: str, partitions: int = 3) -> bool:
        """Make a topic unless there is one of that name; return whether it was made. It can be written to when this returns."""
        from confluent_kafka import KafkaError, KafkaException
        from confluent_kafka.admin import NewTopic

        admin = self._admin()
        try:
            admin.create_topics([NewTopic(name, num_partitions=partitions, replication_factor=1)])[name].result(30)
        except KafkaException as error:
            if error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:
                return False
            raise PipelineError(f"The topic {name!r} cannot be made: {error.args[0].str()}") from None
        if not _wait_for(lambda: _led_partitions(admin, name) == partitions, time.monotonic() + 30):
            raise PipelineError(f"The topic {name!r} was made, but cannot be written to after 30 s: see {self.log}.")
        return True

    def delete_topic(self, name: str) -> bool:
        """Delete a topic; return whether there was one."""
        from confluent_kafka import KafkaError, KafkaException

        admin = self._admin()
        try:
            admin.delete_topics([name])[name].result(30)
        except KafkaException as error:
            if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                return False
            raise PipelineError(f"The topic {name!r} cannot be deleted: {error.args[0].str()}") from None
        return True

    # -- one process, its state and its files

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """Only one process at a time starts or stops this broker; the others wait and then find it as it is."""
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            self.folder.mkdir(mode=0o700, exist_ok=True)  # events and keys are their owner's alone
            (self.folder / "logs").mkdir(exist_ok=True)
            with FileLock(self.folder / "broker.lock", timeout=2 * START_SECONDS + STOP_SECONDS):
                yield
        except Timeout:
            raise PipelineError(f"Another process has been starting or stopping the broker in {self.folder} for minutes: end it.") from None
        except OSError as error:
            raise PipelineError(
                f"The broker cannot use its folder {self.folder} ({error.strerror or error}): choose another --home."
            ) from None

    def _read_state(self) -> dict[str, Any]:
        """What was put down when the broker was last started or stopped; nothing if it never was."""
        path = self.folder / "state.json"
        try:
            state = json.loads(path.read_text(encoding="utf-8"))
            pid, ports = state.get("pid"), state.get("ports")
            if pid:
                datetime.fromisoformat(state["since"])
            numbers = [*([pid] if pid else []), *([ports[listener] for listener in LISTENERS] if pid or ports else [])]
            if not all(isinstance(number, int) and number > 0 for number in numbers) or max(numbers[-len(LISTENERS) :], default=0) > 65535:
                raise ValueError("not as it was written")
            return state
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except Exception:  # whatever is wrong in it; to go on as if no broker ran would leave one behind that does
            mark = self._mark.removeprefix("-D")
            raise PipelineError(
                f"{path} is broken, which says whether a broker runs: end the broker, if `pgrep -f {mark}` finds one, and delete the file."
            ) from None

    def _write_state(self, state: dict[str, Any]) -> None:
        self._write("state.json", json.dumps(state))

    def _write(self, name: str, text: str) -> None:
        """Write a file of the broker's folder in one step, readable by its owner only."""
        fresh = self.folder / f".{name}.{os.getpid()}"
        fresh.unlink(missing_ok=True)
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
        fresh.replace(self.folder / name)

    def _pid(self) -> int | None:
        """The pid of the running broker, if it runs."""
        if self._process:  # our own child: it runs or not, whatever the state says
            if self._process.poll() is None:
                return self._process.pid
            self._let_go()
        pid = self._read_state().get("pid")
        return pid if pid and _runs(pid, self._mark) else None

    def _has_ended(self, pid: int) -> bool:
        if self._process and self._process.pid == pid:
            return self._process.poll() is not None
        return not _runs(pid, self._mark)

    def _running_ports(self) -> dict[str, int]:
        status = self.status()
        if status.state != "running" or not status.ports:
            raise PipelineError(f"The local broker is not running ({status.state}): start it with `streaming-pipeline broker start`.")
        return status.ports

    def _credentials(self) -> tuple[str, str]:
        """User and password of the SASL_SSL listener, made at random once."""
        path = self.folder / "credentials.json"
        if not path.exists():
            self._write(path.name, json.dumps({"username": "local", "password": secrets.token_urlsafe(24)}))
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            user, password = found["username"], found["password"]
            if not isinstance(user, str) or not isinstance(password, str):
                raise ValueError("not as it was written")
        except Exception:  # whatever is wrong in it
            raise PipelineError(
                f"{path} is broken: stop the broker (`streaming-pipeline broker stop`) and delete the file; the next start makes a new one."
            ) from None
        return user, password

    def _choose_ports(self) -> dict[str, int]:
        """The ports used before, if they are free, so that clients' settings stay good; else any free ones."""
        ports = self._read_state().get("ports") or {}
        # A broker that was killed an instant ago may still hold them.
        if ports and _wait_for(lambda: all(_is_free(port) for port in ports.values()), time.monotonic() + 1):
            return ports
        with ExitStack() as held:  # until all are chosen, so that none is chosen twice
            try:
                for listener in LISTENERS:
                    candidate = held.enter_context(socket.socket())
                    candidate.bind((HOST, 0))
                    ports[listener] = candidate.getsockname()[1]
            except OSError as error:
                raise PipelineError(f"There is no free port on {HOST} for the broker ({error.strerror}): end some programs.") from None
        return ports

    def _write_properties(self, ports: dict[str, int]) -> None:
        user, password = self._credentials()
        login = jaas_config({"username": user, "password": password, f"user_{user}": password})
        properties = _PROPERTIES | {
            "controller.quorum.bootstrap.servers": f"{HOST}:{ports['CONTROLLER']}",
            "listeners": ",".join(f"{listener}://{HOST}:{ports[listener]}" for listener in LISTENERS),
            "listener.name.sasl_ssl.plain.sasl.jaas.config": login,
        }
        self._write("server.properties", "".join(f"{key}={_property(value)}\n" for key, value in properties.items()))

    def _format_storage(self, class_path: str) -> None:
        """Prepare the data folder, once."""
        if (self.folder / "data" / "meta.properties").exists():
            return
        cluster_id = urlsafe_b64encode(b"\0" + uuid.uuid4().bytes[1:]).decode().rstrip("=")  # must not begin like an option
        with open(self.log, "wb") as log:
            command = [*self._java(), "-cp", class_path, "kafka.tools.StorageTool", "format", "--standalone"]
            command += ["--ignore-formatted", "-t", cluster_id, "-c", "server.properties"]
            run = subprocess.run(command, cwd=self.folder, env=_java_environment(), stdout=log, stderr=log, check=False)
        if run.returncode:
            raise PipelineError(self._why_not_started("its data folder could not be prepared"))

    def _java(self) -> list[str]:
        # A short life on a small machine: a quick start counts for more than the last bit of throughput.
        options = f"-Xmx{self.heap} -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:+ExitOnOutOfMemoryError -Djava.net.preferIPv4Stack=true"
        logging = {"defaultLogLevel": "warn", "showDateTime": "true", "dateTimeFormat": "yyyy-MM-dd'T'HH:mm:ss.SSSZ"}
        quiet = [f"-Dorg.slf4j.simpleLogger.{key}={value}" for key, value in logging.items()]
        return [str(java_home() / "bin" / "java"), *options.split(), *quiet]

    def _launch(self, class_path: str, ports: dict[str, int], owned: bool) -> int:
        command = [*self._java(), self._mark, "-cp", class_path, "kafka.Kafka", "server.properties"]
        if self.log.exists():
            self.log.replace(self.log.with_suffix(".log.1"))
        with open(self.log, "wb") as log:
            # A session of its own: Ctrl-C and the closing of the terminal are for the command line, which then stops what it owns.
            self._process = subprocess.Popen(
                command, cwd=self.folder, env=_java_environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        pid = self._process.pid
        if owned:
            self._leash = _leash(pid)
            atexit.register(self.stop)
        self._write_state({"pid": pid, "ports": ports, "since": datetime.now(UTC).isoformat(timespec="seconds")})
        return pid

    def _wait_until_ready(self, pid: int) -> None:
        """Wait until a client can list topics over mTLS. Raises `PipelineError` as soon as the broker has ended, or at the deadline."""
        ports = self._read_state()["ports"]

        def alive() -> bool:
            if self._has_ended(pid):
                raise PipelineError(self._why_not_started("it ended while it started"))
            return True

        deadline = time.monotonic() + START_SECONDS
        # Knocking is cheap; a client that knocks too early waits longer and longer before it tries again.
        ready = _wait_for(lambda: alive() and _answers(ports["SSL"]) and _answers(ports["SASL_SSL"]), deadline)
        if ready:
            admin = self._admin()
            ready = _wait_for(lambda: alive() and _brokers(admin) > 0, deadline)
        if not ready:
            raise PipelineError(self._why_not_started(f"it did not answer within {START_SECONDS} s"))

    def _why_not_started(self, what: str) -> str:
        """One sentence for a start that failed, with the cause that the log names, if it is one that we know."""
        log = self._log_tail(200)
        if re.search(r"OutOfMemoryError|Too small|Could not reserve|Cannot allocate memory|insufficient memory|Invalid maximum heap", log):
            return f"The local broker did not start: a heap of {self.heap} is too little for it, or more than there is. See {self.log}."
        if "Address already in use" in log:
            return f"The local broker did not start: another program has taken its port (Address already in use). See {self.log}."
        if "No space left on device" in log:
            return f"The local broker did not start: there is no space left for {self.folder}."
        causes = re.findall(r"^.*(?:Exception|Error)\b.*$", log, re.MULTILINE)
        cause = f" ({causes[-1].strip()[:200]})" if causes else ""
        return f"The local broker did not start: {what}{cause}. See {self.log}."

    def _log_tail(self, lines: int = 10) -> str:
        try:
            return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
        except OSError:
            return ""

    def _admin(self) -> Any:
        from confluent_kafka.admin import AdminClient

        return AdminClient(client_config(self.kafka_settings("SSL")))

    def _end(self, pid: int) -> None:
        """End the broker with this pid: by asking, and when it does not end in time by force."""
        for signal_number, seconds in ((signal.SIGTERM, STOP_SECONDS), (signal.SIGKILL, 10)):
            if not self._has_ended(pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal_number)
                _wait_for(lambda: self._has_ended(pid), time.monotonic() + seconds)
        self._let_go()

    def _let_go(self) -> None:
        """The broker has ended: what was there to end it is not needed any more."""
        if self._leash:
            self._leash.kill()
            self._leash.wait()
        self._process = self._leash = None
        atexit.unregister(self.stop)


@contextmanager
def running_broker(home: Path) -> Iterator[Broker]:
    """The broker of `home`, running: one that runs already is used and left running, else one is started and stopped at the end."""
    broker = Broker(home)
    started = broker.start(owned=True)
    try:
        yield broker
    finally:
        if started:
            broker.stop()


def _leash(pid: int) -> subprocess.Popen:
    """A tiny process that kills `pid` when this process ends, in whatever way: then the pipe between the two closes.

    (Linux could tie a child to its parent, but ties it to the *thread* that started it, and macOS cannot.)
    """
    return subprocess.Popen(
        ["/bin/sh", "-c", 'read -r _; kill -9 "$1"', "sh", str(pid)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _runs(pid: int, mark: str) -> bool:
    """Whether a process with this mark on its command line has this pid."""
    if sys.platform != "linux":
        command = ["ps", "-ww", "-o", "args=", "-p", str(pid)]
        return mark in subprocess.run(command, capture_output=True, text=True, errors="replace", check=False).stdout
    try:
        command_line = Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
        state = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0]
    except OSError:
        return False
    # A process that is just beginning or ending, and still holds its ports, is at work without a command line; a zombie is not.
    return mark in command_line or (not command_line and state in "RD")


def _java_environment() -> dict[str, str]:
    """This process's environment, but for Java's options, whose garbage collector may be another than the broker's: Java would refuse two.

    Without a UTF-8 locale it could not open a folder whose path has other letters than ASCII.
    """
    kept = {name: value for name, value in os.environ.items() if name not in ("JDK_JAVA_OPTIONS", "JAVA_TOOL_OPTIONS")}
    return kept | ({"LC_ALL": "C.UTF-8"} if sys.platform == "linux" else {})


def _property(text: str) -> str:
    """A value as a Java properties file wants it."""
    encoded = text.encode("utf-16-be")
    units = [int.from_bytes(encoded[i : i + 2]) for i in range(0, len(encoded), 2)]
    return "".join(chr(unit) if 32 < unit < 127 and unit != 92 else f"\\u{unit:04x}" for unit in units)


def _is_free(port: int) -> bool:
    with socket.socket() as candidate:
        candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the broker does: connections that just ended do not count
        try:
            candidate.bind((HOST, port))
        except OSError:
            return False
    return True


def _answers(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), timeout=1).close()
    except OSError:
        return False
    return True


def _brokers(admin: Any) -> int:
    from confluent_kafka import KafkaException

    try:
        return len(admin.list_topics(timeout=2).brokers)
    except KafkaException:
        return 0


def _led_partitions(admin: Any, topic: str) -> int:
    """How many partitions of the topic have a leader, as far as the broker has heard."""
    from confluent_kafka import KafkaException

    try:
        found = admin.list_topics(topic, timeout=5).topics[topic]
    except KafkaException:
        return 0
    return sum(partition.leader >= 0 for partition in found.partitions.values())


def _wait_for(condition: Callable[[], bool], deadline: float) -> bool:
    """Ask until the condition holds or the time has come; return whether it holds."""
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
