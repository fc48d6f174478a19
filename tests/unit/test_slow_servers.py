"""Servers that send a byte now and then: a delivery ends by its own limit, channels do not wait for each other, and no alert is lost."""

import contextlib
import json
import signal
import socket
import ssl
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from laptop.services.certificates import ensure_certificates
from streaming_pipeline.alerts import deliver as delivery
from streaming_pipeline.alerts.deliver import Journal, Message, Outcome, Temporary, deliver
from streaming_pipeline.alerts.line import Line
from streaming_pipeline.alerts.mail import compose
from streaming_pipeline.alerts.outbox import Alert
from streaming_pipeline.alerts.smtp import MailServer, SmtpSettings
from streaming_pipeline.alerts.webhook import post
from streaming_pipeline.core.errors import UsageError

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
ALERT = Alert("a", "f", "drift", "warning", NOON, "what", NOON, NOON, "r", "drift")
MESSAGE = Message("m1", "email", ("to@example.com",), (ALERT,), NOON)
TO_WEBHOOK = replace(MESSAGE, message_id="m2", channel="webhook", recipients=(), alerts=(replace(ALERT, alert_id="b", channel="webhook"),))


@contextlib.contextmanager
def serving(answer):
    """A server on a free port; each of its connections is given to `answer`, with an event that is set at the end. Yields the port."""
    stop, threads = threading.Event(), []
    listener = socket.create_server(("127.0.0.1", 0))

    def take(connection):
        # A client that goes away in the middle of a word is what these tests are about.
        with contextlib.suppress(OSError), connection:
            answer(connection, stop)

    def accept():
        with contextlib.suppress(OSError):
            while True:
                threads.append(threading.Thread(target=take, args=(listener.accept()[0],)))
                threads[-1].start()

    threads.append(threading.Thread(target=accept))
    threads[0].start()
    try:
        yield listener.getsockname()[1]
    finally:
        stop.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for thread in threads:
            thread.join()


def trickle(connection, stop, text=b"2"):
    """Say the same over and over, little by little, until the other side hangs up."""
    while not stop.wait(0.02):
        connection.sendall(text)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return ensure_certificates(tmp_path_factory.mktemp("tls") / "certificates")


@contextlib.contextmanager
def mail_server(certificates, slow_at, timeout_seconds, in_stage=lambda: None):
    """A mail server that says what it must, and from a stage on trickles; yields a `MailServer` that reaches it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server_keystore)

    def answer(connection, stop):
        def at(stage, said, slowly=b"2"):
            if stage == slow_at:
                in_stage()
                trickle(connection, stop, slowly)
            connection.sendall(said)

        at("banner", b"220 here\r\n")
        connection.recv(1000)
        at("hello", b"250-here\r\n250 STARTTLS\r\n")
        connection.recv(1000)
        at("go ahead", b"220 go ahead\r\n")
        if slow_at == "handshake":
            connection.recv(10_000)
            connection.sendall(b"\x16\x03\x03\x40\x00")  # a record of 16 kB begins
        at("handshake", b"", b"\x00")
        connection = context.wrap_socket(connection, server_side=True)
        for stage, said in (
            ("hello again", b"250 here\r\n"),
            ("sender", b"250 ok\r\n"),
            ("recipient", b"250 ok\r\n"),
            ("data", b"354 go\r\n"),
        ):
            connection.recv(1000)
            at(stage, said)
        while not connection.recv(100_000).endswith(b"\r\n.\r\n"):
            pass
        at("taken", b"250 taken\r\n")
        connection.recv(1000)
        at("good-bye", b"221 bye\r\n")

    with serving(answer) as port:
        settings = SmtpSettings("localhost", port, "STARTTLS", "from@example.com", ("to@example.com",), str(certificates.ca))
        with MailServer(settings, timeout_seconds) as server:
            yield server


def hand_over(server):
    return server.send(compose("m1", [ALERT], "from@example.com", ["to@example.com"], "streaming"), ("to@example.com",))


@pytest.mark.parametrize("stage", ["banner", "go ahead", "handshake", "sender", "taken"])
def test_a_mail_server_that_trickles_is_cut_off_at_whatever_stage(certificates, stage):
    said = "does not answer" if stage == "handshake" else r"longer than 1.5 s .* cut off"  # Python itself limits a handshake as a whole
    with mail_server(certificates, stage, 0.5) as server, pytest.raises(Temporary, match=said) as caught:
        hand_over(server)
    # Others would fare the same; and what it may have taken goes out again as it was.
    assert caught.value.is_connection
    assert caught.value.is_unclear == (stage in ("sender", "taken"))


def test_a_good_bye_that_trickles_holds_up_nobody(certificates):
    with mail_server(certificates, "good-bye", 1) as server:
        assert hand_over(server) is None


def test_what_was_cut_off_goes_out_again_under_the_same_message_id(certificates, tmp_path):
    journal, outcome = Journal(tmp_path / "sent"), Outcome()
    with mail_server(certificates, "taken", 0.5) as server:
        deliver([MESSAGE], {"email": lambda _: hand_over(server)}, journal, outcome, timedelta())
    [after] = outcome.alerts.values()
    assert (after.status, after.attempts) == ("PENDING", 1) and "cut off" in after.reason
    assert Journal(tmp_path / "sent").read() == ({"m1": ["a"]}, {})


def test_a_slow_server_is_left_alone_after_three_deliveries(certificates, tmp_path, monkeypatch):
    monkeypatch.setattr(delivery, "FIRST_PAUSE", timedelta())
    alerts = [replace(ALERT, alert_id=f"a{n}") for n in range(20)]
    messages = [replace(MESSAGE, message_id=f"m{n}", alerts=(one,)) for n, one in enumerate(alerts)]
    tried, outcome = [], Outcome()
    with mail_server(certificates, "banner", 0.1) as server:

        def send(message):
            tried.append(message.message_id)
            return hand_over(server)

        deliver(messages, {"email": send}, Journal(tmp_path / "sent"), outcome)
    assert len(tried) == 3
    # It never came to the mail, so that none may have arrived.
    assert Journal(tmp_path / "sent").read() == ({}, {})


def test_an_interrupted_task_leaves_no_delivery_behind_and_knows_what_may_have_arrived(certificates, tmp_path):
    interrupt = lambda: signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)  # noqa: E731
    with mail_server(certificates, "taken", 600, interrupt) as server:
        with pytest.raises(KeyboardInterrupt):
            deliver([MESSAGE], {"email": lambda _: hand_over(server)}, Journal(tmp_path / "sent"), Outcome())
        server.close()
        for thread in threading.enumerate():
            if thread.name == "alerts-email":
                thread.join(60)
                assert not thread.is_alive()
    assert Journal(tmp_path / "sent").read() == ({"m1": ["a"]}, {})


def test_where_a_machine_lacks_one_family_of_addresses_the_other_is_tried_and_its_answer_told(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        place = server.getsockname()
        no_family = (-1, socket.SOCK_STREAM, 0, "", place)
        found = [no_family, (socket.AF_INET, socket.SOCK_STREAM, 0, "", place), no_family]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        Line().open(place, 5).close()
    found[2:] = []
    with pytest.raises(ConnectionRefusedError):
        Line().open(place, 5)


def test_channels_do_not_wait_for_each_other(tmp_path):
    told = threading.Event()

    def mail(_):
        if not told.wait(60):
            raise AssertionError("the webhook waited for the mail")

    outcome = Outcome()
    deliver([MESSAGE, TO_WEBHOOK], {"email": mail, "webhook": lambda _: told.set()}, Journal(tmp_path / "sent"), outcome)
    assert len(outcome.of("SENT")) == 2 and not outcome.wrong


def test_a_channel_that_cannot_be_cut_off_is_left_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(delivery, "LONGEST_DELIVERY", timedelta(seconds=0.5))
    monkeypatch.setattr(delivery, "_LONGEST_LEFT", timedelta())
    released, outcome = threading.Event(), Outcome()
    try:
        senders = {"email": lambda _: released.wait(), "webhook": lambda _: None}
        deliver([MESSAGE, TO_WEBHOOK], senders, Journal(tmp_path / "sent"), outcome)
        assert [one.channel for one in outcome.of("SENT")] == ["webhook"]
        assert outcome.wrong == {"email": "The channel email hangs and cannot be cut off: what it has not sent waits for the next run."}
        assert Journal(tmp_path / "sent").read()[0] == {"m1": ["a"]}
    finally:
        released.set()


@pytest.mark.parametrize("said", [b"H", b"HTTP/1.1 100 Continue\r\n\r\n"])
def test_a_webhook_that_trickles_is_cut_off(said):
    def answer(connection, stop):
        connection.recv(10_000)
        trickle(connection, stop, said)

    with serving(answer) as port, pytest.raises(Temporary, match=r"longer than 1.5 s .* cut off") as caught:
        post(f"http://127.0.0.1:{port}/s3cret", "x", 0.5)
    assert caught.value.is_connection and caught.value.is_unclear and "s3cret" not in str(caught.value)


@pytest.mark.parametrize(("rest", "timeout_seconds"), [(b"X-Slow: ", 0.5), (b"Content-Length: 1000000\r\n\r\n", 600)])
def test_a_webhook_that_has_said_yes_has_taken_it_however_slow_the_rest_is(rest, timeout_seconds):
    def answer(connection, stop):
        connection.recv(10_000)
        connection.sendall(b"HTTP/1.1 200 OK\r\n" + rest)
        trickle(connection, stop)

    with serving(answer) as port:
        assert post(f"http://127.0.0.1:{port}/hook", "x", timeout_seconds) is None


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_a_redirect_of_the_webhook_is_refused_and_leads_nobody_to_the_alert(code):
    asked = []

    def elsewhere(connection, stop):
        asked.append(connection.recv(10_000))

    with serving(elsewhere) as other:

        def answer(connection, stop):
            connection.recv(10_000)
            connection.sendall(f"HTTP/1.1 {code} Moved\r\nLocation: http://127.0.0.1:{other}/t0ken\r\nContent-Length: 0\r\n\r\n".encode())

        with serving(answer) as port, pytest.raises(UsageError, match="ALERT_WEBHOOK_URL answers with a redirect") as caught:
            post(f"http://127.0.0.1:{port}/s3cret", json.dumps("what"), 60)
    assert asked == [] and "s3cret" not in str(caught.value) and "t0ken" not in str(caught.value)
