"""A thousand alerts, a mail server that fails three times in ten, and a sender that is killed again and again: what arrives?

    uv run python benchmarks/alerts.py [--alerts 1000] [--seed 1]

The server is aiosmtpd, over STARTTLS with a log-in. Of ten mails it answers one with a temporary error, hangs up on one and leaves one
without an answer, before it takes them. The sender is task 05 in a process of its own, one mail for each alert; it is killed (SIGKILL) some
seconds after its first mail, and started again until nothing waits. Each mail that was taken is counted by its Message-ID.
"""

import argparse
import asyncio
import json
import os
import random
import re
import subprocess
import sys
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bench import fresh_home, own_settings, table, write_section

from laptop.services.certificates import ensure_certificates
from laptop.services.mailbox import running_mailbox
from laptop.services.spark import start_session
from streaming_pipeline.alerts import outbox
from streaming_pipeline.alerts.outbox import Alert
from streaming_pipeline.alerts.send import send_alerts

SCHEMA = "alerts"
TIMEOUT_SECONDS = 1.0
FAULTS = ("451 try later", "hang up", "no answer")
SHARE = 0.3


class Server:
    """What the mail server does: it fails by chance, and counts what it takes."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.taken: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()

    async def handle_DATA(self, server, session, envelope) -> str:
        """Fail, or take a mail."""
        if self.chance.random() < SHARE:
            fault = self.chance.choice(FAULTS)
            self.failed[fault] += 1
            if fault == "hang up":
                server.transport.abort()
            elif fault == "no answer":
                await asyncio.sleep(3 * TIMEOUT_SECONDS)
                server.transport.abort()
            return "451 try later"
        found = re.search(rb"Message-ID:\s*<([0-9a-f]+)@", envelope.original_content)
        self.taken[found[1].decode()] += 1
        return "250 taken"


def sender(home: Path, how: str) -> None:
    """What is killed: task 05, or the writing of the alerts that it is to send."""
    settings = own_settings(home, SCHEMA, config_dir=str(home / "config"))
    spark = start_session(home, memory="2g")
    if how.isdigit():
        from streaming_pipeline.core import tables

        tables.create_missing(spark, settings, [tables.ALERT_OUTBOX])
        now = datetime.now(UTC)
        about = [f"column_{n}" for n in range(int(how))]
        alerts = [Alert(f"{n:032x}", name, "drift", "warning", now, "it drifts", now, now, "1", "drift") for n, name in enumerate(about)]
        outbox.add(spark, settings, alerts)
    else:
        secrets = json.loads(os.environ["MAIL"])
        sending = send_alerts(spark, settings, {}, lambda: secrets, timeout_seconds=TIMEOUT_SECONDS, patience=timedelta(minutes=4))
        print(sending.note, flush=True)
    rows = spark.sql(f"SELECT status, count(*) FROM {settings.table('alert_outbox')} GROUP BY status").collect()
    print("STATUS", json.dumps(dict(map(tuple, rows))), flush=True)
    spark.stop()


def start(home: Path, how: str, mail: dict[str, str]) -> subprocess.Popen:
    """A sender, as a process."""
    line = [sys.executable, __file__, "--sender", str(home), how]
    return subprocess.Popen(
        line, env={**os.environ, "MAIL": json.dumps(mail)}, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )


def status(process: subprocess.Popen) -> dict[str, int]:
    """How many alerts have which status, as a sender said at its end."""
    out, _ = process.communicate()
    found = re.search(r"^STATUS (.*)$", out, re.MULTILINE)
    if process.returncode or not found:
        raise SystemExit(f"the sender failed:\n{out}")
    return json.loads(found[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--alerts", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--sender", nargs=2)
    options = parser.parse_args()
    if options.sender:
        sender(Path(options.sender[0]), options.sender[1])
        return
    home = fresh_home("alerts")
    (home / "config").mkdir()
    (home / "config" / "alert_rules.yml").write_text("group: false\nrules:\n  - {name: drift, finding: drift}\n")
    server, chance, kills, began = Server(options.seed), random.Random(options.seed), 0, time.monotonic()
    status(start(home, str(options.alerts), {}))
    with running_mailbox(ensure_certificates(home / "certificates"), home / "mail", handler=server) as (_, mail):
        while True:
            process, before = start(home, "send", mail), server.taken.total()
            while process.poll() is None and server.taken.total() == before:
                time.sleep(0.01)
            # The longer it takes the fewer are left: towards the end one is let go on to it.
            if process.poll() is None and server.taken.total() < 0.95 * options.alerts:
                time.sleep(chance.uniform(0.1, 10))
                process.kill()
                kills += 1
                process.communicate()
                print(f"killed {kills} times, {server.taken.total()} mails taken", flush=True)
            elif (held := status(process)).get("PENDING", 0) == 0:
                break
    twice = sum(count - 1 for count in server.taken.values())
    write_section(
        "Alerts",
        f"{options.alerts:,} alerts, one mail each, over STARTTLS to a server that failed {server.failed.total():,} times "
        f"({', '.join(f'{fault}: {count}' for fault, count in sorted(server.failed.items()))}); the sender was killed {kills} times; "
        f"{time.monotonic() - began:,.0f} s in all, most of it Spark's starts.\n\n"
        + table(
            ("alerts", "arrived", "lost", "sent twice", "SENT in alert_outbox", "DEAD"),
            [
                (
                    f"{options.alerts:,}",
                    f"{len(server.taken):,}",
                    options.alerts - len(server.taken),
                    f"{twice} ({twice / options.alerts:.1%})",
                    f"{held.get('SENT', 0):,}",
                    held.get("DEAD", 0),
                )
            ],
        ),
    )
    if len(server.taken) != options.alerts or twice > options.alerts / 100:
        raise SystemExit("FAILED: alerts were lost, or more than 1 % sent twice")


if __name__ == "__main__":
    main()
