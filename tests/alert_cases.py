"""What the tests of alerts share."""

import http.server
import json
import threading
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from streaming_pipeline.alerts import deliver as delivery
from streaming_pipeline.alerts.deliver import Journal, Outcome, deliver
from streaming_pipeline.alerts.findings import Look
from streaming_pipeline.alerts.mail import compose
from streaming_pipeline.alerts.outbox import Alert
from streaming_pipeline.alerts.rules import Rule, Rules

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


# ------------------------------------------------------------------------------------------------------------------ which there are


def look(number, *judged, at=None):
    at = at or NOON + number * HOUR
    return Look(at, number, frozenset(judged))


# ------------------------------------------------------------------------------------------------------------------ when they are sent


def alert(
    name="drift", *, at=NOON, status="PENDING", sent=None, recovery=False, channel="email", recipients=(), message=None, kind="drift"
):
    return Alert(
        alert_id=f"{name}-{at.isoformat()}-{recovery}-{channel}", fingerprint=name, anomaly_type=kind, severity="warning", event_time=at,
        message="what", next_attempt_at=at, created_at=at, run_id="r", rule=kind, channel=channel, recipients=recipients, status=status,
        sent_at=sent, is_recovery=recovery,
    )  # fmt: skip


def plan(alerts, rules, silences, now, begun=()):
    return delivery.plan(alerts, rules, silences, now, dict(begun))


FOUR_HOURS = Rules((Rule("drift", "drift", cooldown=4 * HOUR),))


def run_delivery(tmp_path, messages, sender, outcome=None):
    """One run that waits for nobody."""
    outcome = outcome or Outcome()
    deliver(messages, {"email": sender}, Journal(tmp_path / "sent"), outcome, timedelta())
    return outcome


# ------------------------------------------------------------------------------------------------------------ real servers


class Flaky:
    """A mail server's handler that answers as it is told, in turn, then as it should."""

    def __init__(self, *answers):
        self.answers, self.taken = list(answers), []

    async def handle_RCPT(self, server, session, envelope, address, options):
        if self.answers and isinstance(self.answers[0], dict):
            said = self.answers[0].pop(address, None)
            if not self.answers[0]:
                self.answers.pop(0)
            if said:
                return said
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        answer = self.answers.pop(0) if self.answers else "250 taken"
        if answer == "hang up":
            server.transport.close()
            return "250 never read"
        if answer.startswith("250"):
            self.taken.append(envelope.rcpt_tos)
        return answer


def hand_over(server, *recipients):
    recipients = recipients or ("a@example.com",)
    return server.send(compose("m1", [alert()], "from@example.com", recipients, "streaming"), recipients)


@contextmanager
def web_server(*codes):
    """A server that answers with these codes in turn, then with 200; yields its address and the bodies that it got."""
    waiting, bodies = list(codes), []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            code = waiting.pop(0) if waiting else 200
            self.send_response(code)
            if code == 302:
                self.send_header("Location", "http://127.0.0.1:1/")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/hook/s3cret", bodies
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
