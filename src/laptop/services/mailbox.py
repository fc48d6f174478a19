"""A mail server on this machine that keeps what it is given: STARTTLS or TLS with the local authority's certificate, and a log-in."""

import logging
import secrets as random
import socket
import ssl
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword

from laptop.services.certificates import Certificates

SENDER, RECIPIENT = "pipeline@localhost.localdomain", "on-call@localhost.localdomain"
USERNAME = "user-of-the-local-mailbox"
"""Like no other word: a run's pages black out every secret, and with "pipeline" the names that hold it."""


@dataclass(eq=False)
class Mailbox:
    """The mails that came, oldest first, each also as a file of `folder`."""

    folder: Path
    mails: list[EmailMessage] = field(default_factory=list)

    async def handle_DATA(self, server: SMTP, session: Any, envelope: Envelope) -> str:
        """Keep a mail, then say that it was taken."""
        mail = message_from_bytes(envelope.original_content or b"", policy=policy.default)
        self.mails.append(mail)
        self.folder.mkdir(parents=True, exist_ok=True)
        name = self.folder / f"{len(self.mails):03}"
        name.with_suffix(".eml").write_bytes(envelope.original_content or b"")
        page = mail.get_body(("html",))
        if page:
            name.with_suffix(".html").write_text(page.get_content(), encoding="utf-8")
        return "250 taken"


class _Controller(Controller):
    """Of a server that offers STARTTLS; aiosmtpd's own knows TLS from the start alone."""

    def __init__(self, handler: Any, port: int, context: ssl.SSLContext, security: str, password: str) -> None:
        self._context, self._security, self._password = context, security, password
        super().__init__(handler, "127.0.0.1", port, ready_timeout=30, ssl_context=context if security == "TLS" else None)

    def factory(self) -> SMTP:
        options: dict[str, Any] = {"authenticator": self._log_in, "auth_required": True, "hostname": "localhost"}
        if self._security == "STARTTLS":
            options |= {"tls_context": self._context, "require_starttls": True}
        else:
            options |= {"auth_require_tls": False}  # there is no other line here
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it does not see that TLS is there from the start
            return SMTP(self.handler, **options)

    def _log_in(self, server: SMTP, session: Any, envelope: Envelope, mechanism: str, given: Any) -> AuthResult:
        is_right = isinstance(given, LoginPassword) and (given.login, given.password) == (USERNAME.encode(), self._password.encode())
        return AuthResult(success=is_right, handled=False)


@contextmanager
def running_mailbox(
    certificates: Certificates, folder: Path, *, security: str = "STARTTLS", handler: Any = None
) -> Iterator[tuple[Mailbox, dict[str, str]]]:
    """A mail server on a free port until the block ends; yields its mailbox, and the SMTP_ settings that reach it.

    `handler` takes the place of the mailbox as what aiosmtpd calls.
    """
    logging.getLogger("mail.log").setLevel(logging.CRITICAL + 1)  # it prints the stack of each connection that breaks
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server_keystore)
    mailbox, password = Mailbox(folder), random.token_urlsafe(16)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    controller = _Controller(handler or mailbox, port, context, security, password)
    controller.start()
    try:
        yield (
            mailbox,
            {
                "SMTP_HOST": "localhost",
                "SMTP_PORT": str(port),
                "SMTP_SECURITY": security,
                "SMTP_SSL_CA_LOCATION": str(certificates.ca),
                "SMTP_USERNAME": USERNAME,
                "SMTP_PASSWORD": password,
                "SMTP_FROM": SENDER,
                "SMTP_TO": RECIPIENT,
            },
        )
    finally:
        controller.stop()
