"""The local broker starts once, keeps its address and data, is known to be dead when it is, and never outlives an owner."""

import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest

from laptop.services import certificates, java
from laptop.services.broker import Broker, running_broker
from streaming_pipeline.core.errors import PipelineError
from streaming_pipeline.events.producer import LineRecords, produce
from streaming_pipeline.kafka.connection import check_connection

ODD_PASSWORD = 'a"b\\c =:#!é,;'


@pytest.fixture(scope="module")
def own_home(tmp_path_factory):
    """A home folder for brokers that are killed, with letters in its path, and a password, that need care."""
    home = tmp_path_factory.mktemp("a home, é=ü")
    (home / "broker").mkdir()
    (home / "broker" / "credentials.json").write_text(json.dumps({"username": "local", "password": ODD_PASSWORD}))
    yield home
    Broker(home).stop()


def python(code, home, **more):
    """Another process that has `broker` and runs `code`."""
    lines = f"import pathlib, sys\nfrom laptop.services.broker import Broker\nbroker = Broker(pathlib.Path(sys.argv[1]))\n{code}"
    return subprocess.Popen([sys.executable, "-c", lines, str(home)], stdout=subprocess.PIPE, text=True, **more)


def has_ended_within(pid, seconds):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def test_two_that_start_at_once_share_one_broker_which_stays_and_a_crash_is_noticed(own_home):
    both = [python("print(broker.start())", own_home) for _ in range(2)]
    assert sorted(process.communicate()[0].strip() for process in both) == ["False", "True"]

    broker = Broker(own_home)
    before = broker.status()
    assert before.state == "running"
    assert broker.create_topic("stream-input") is True
    assert broker.create_topic("stream-input") is False
    topic = check_connection(broker.kafka_settings("SSL"))
    assert topic.partitions == (0, 1, 2)
    assert broker.kafka_settings("SASL_SSL").api_secret == ODD_PASSWORD
    assert check_connection(broker.kafka_settings("SASL_SSL")) == topic

    os.kill(before.pid, signal.SIGKILL)
    assert has_ended_within(before.pid, 10)
    crashed = broker.status()
    assert (crashed.state, crashed.pid) == ("crashed", None)
    assert "QuorumController" in crashed.log_tail
    with pytest.raises(PipelineError, match=r"not running \(crashed\)"):
        broker.kafka_settings("SSL")

    assert broker.start(owned=True) is True
    assert broker.status().ports == before.ports
    assert check_connection(broker.kafka_settings("SSL")) == topic
    assert broker.delete_topic("stream-input") is True
    assert broker.delete_topic("stream-input") is False

    pid = broker.status().pid
    assert broker.stop() is True
    assert has_ended_within(pid, 1)
    assert broker.stop() is False
    assert broker.status().state == "stopped"


def test_a_broker_does_not_outlive_an_owner_that_is_killed(own_home):
    owner = python("broker.start(owned=True)\nprint(broker.status().pid, flush=True)\nsys.stdin.read()", own_home, stdin=subprocess.PIPE)
    pid = int(owner.stdout.readline())
    owner.kill()
    owner.communicate()
    assert has_ended_within(pid, 10)
    assert Broker(own_home).status().state == "crashed"


def test_a_port_that_another_program_has_is_replaced(own_home, monkeypatch):
    monkeypatch.setenv("JDK_JAVA_OPTIONS", "-XX:+UseParallelGC")  # meant for Spark; Java would refuse to start with two collectors
    with socket.socket() as thief:
        thief.bind(("127.0.0.1", 0))
        thief.listen()
        taken = thief.getsockname()[1]
        stolen = {"SSL": taken, "SASL_SSL": taken + 1, "CONTROLLER": taken + 2}
        (own_home / "broker" / "state.json").write_text(json.dumps({"ports": stolen}))
        free = Broker(own_home)._choose_ports()
        assert taken not in free.values()

        # As if it had been taken between the choice and the start.
        choices = iter([stolen, free])
        monkeypatch.setattr(Broker, "_choose_ports", lambda self: next(choices))
        with running_broker(own_home) as broker:
            assert broker.status().ports == free
            with running_broker(own_home) as same:
                assert same.status() == broker.status()
            assert broker.create_topic("stream-input") is True
    assert "Address already in use" in broker.log.with_suffix(".log.1").read_text()
    assert broker.status().state == "stopped"


def test_a_command_that_is_asked_to_end_stops_the_broker_that_it_started(own_home):
    with running_broker(own_home) as broker:
        broker.create_topic("stream-input")
        produce(broker.kafka_settings("SSL", "stream-input"), LineRecords([b"{}"]))
    line = [sys.executable, "-m", "laptop.cli", "consume", "--follow", "--home", str(own_home)]
    follow = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
    assert follow.stdout.readline().endswith("{}\n")
    follow.terminate()
    assert (follow.communicate(timeout=60)[1], follow.returncode) == ("Stopped.\n", 130)
    assert Broker(own_home).status().state == "stopped"


def test_too_little_heap_is_said(own_home):
    with pytest.raises(PipelineError, match=r"a heap of 1m is too little"):
        Broker(own_home, heap="1m").start(owned=True)
    assert Broker(own_home).status().state == "stopped"


def test_no_java_is_said(tmp_path, monkeypatch):
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(java, "USUAL_PLACES", ())
    monkeypatch.setenv("STREAMING_PIPELINE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CJDK_INDEX_URL", "https://127.0.0.1:1/index.json")
    with pytest.raises(PipelineError, match="Install Java 17 or 21"):
        Broker(tmp_path / "home").start()


def test_a_folder_that_cannot_be_used_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PipelineError, match=r"cannot use its folder .*--home"):
        Broker(tmp_path / "file").start()


def test_another_process_with_the_pid_of_a_dead_broker_is_not_taken_for_it(tmp_path):
    broker = Broker(tmp_path)
    assert broker.status().state == "stopped"
    assert broker.stop() is False
    broker.folder.mkdir()
    state = {"pid": os.getpid(), "ports": {"SSL": 1, "SASL_SSL": 2, "CONTROLLER": 3}, "since": "2025-04-01T00:00:00+00:00"}
    (broker.folder / "state.json").write_text(json.dumps(state))
    assert broker.status().state == "crashed"
    assert broker.stop() is False  # and above all it is not killed
    assert broker.status().state == "stopped"


GOOD_STATE = {"pid": 1, "ports": {"SSL": 1, "SASL_SSL": 2, "CONTROLLER": 3}, "since": "2025-04-01T00:00:00+00:00"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "\xff",
        '{"pid": 1}',
        *(json.dumps(GOOD_STATE | change) for change in ({"pid": "x"}, {"ports": 5}, {"since": 1}, {"pid": -1})),
        json.dumps(GOOD_STATE | {"pid": None, "ports": GOOD_STATE["ports"] | {"SSL": 99_999}}),
        "[" * 100_000,
    ],
)
def test_a_broken_state_is_named_since_a_broker_may_run(tmp_path, text):
    broker = Broker(tmp_path)
    broker.folder.mkdir()
    (broker.folder / "state.json").write_bytes(text.encode("latin-1"))
    for use in (broker.status, broker.stop, broker.start, broker.secrets):
        with pytest.raises(PipelineError, match=r"state\.json is broken.*pgrep -f \S+.*delete the file"):
            use()
    (broker.folder / "state.json").unlink()
    assert broker.status().state == "stopped"


@pytest.mark.parametrize("text", ["", "[]", "\xff", '{"username": "local"}', '{"username": "local", "password": 1}'])
def test_broken_credentials_are_named(tmp_path, text):
    broker = Broker(tmp_path)
    broker.folder.mkdir()
    (broker.folder / "credentials.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(PipelineError, match=r"credentials\.json is broken.*broker stop.*delete the file"):
        broker.start()
    assert broker.status().state == "stopped"


def test_it_listens_on_this_machine_only(broker):
    pid = broker.status().pid
    own = {os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()}
    listening = [
        fields[1]
        for table in ("tcp", "tcp6")
        for fields in map(str.split, Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:])
        if fields[3] == "0A" and f"socket:[{fields[9]}]" in own
    ]
    assert {int(address.rpartition(":")[2], 16) for address in listening} == set(broker.status().ports.values())
    assert {address.rpartition(":")[0] for address in listening} == {"0100007F"}


def test_keys_passwords_and_certificates_are_readable_by_their_owner_only(broker):
    files = [
        path for path in broker.folder.rglob("*") if path.suffix in (".pem", ".key", ".json", ".properties") and "data" not in path.parts
    ]
    assert len(files) == 8
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert stat.S_IMODE(broker.folder.stat().st_mode) == 0o700
    assert not re.search(re.escape(broker.secrets("SASL_SSL")["KAFKA_API_SECRET"]), broker.log.read_text())


def test_certificates_are_renewed_by_the_same_authority_before_they_expire(tmp_path, monkeypatch):
    folder = tmp_path / "certificates"
    monkeypatch.setattr(certificates, "VALID_FOR", timedelta(days=6))
    made = certificates.ensure_certificates(folder)
    ca, expiring = made.ca.read_bytes(), made.client_certificate.read_bytes()

    monkeypatch.setattr(certificates, "VALID_FOR", timedelta(days=8))
    certificates.ensure_certificates(folder)
    renewed = made.client_certificate.read_bytes()
    assert (made.ca.read_bytes(), renewed == expiring) == (ca, False)

    certificates.ensure_certificates(folder)
    assert made.client_certificate.read_bytes() == renewed

    made.server_keystore.write_text("cut off")
    certificates.ensure_certificates(folder)
    assert b"BEGIN PRIVATE KEY" in made.server_keystore.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["certificates"]
