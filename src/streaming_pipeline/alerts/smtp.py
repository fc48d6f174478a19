"""A mail server: the SMTP_ settings, and handing it a mail over TLS, with its certificate checked."""

import re
import smtplib
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.message import EmailMessage
from threading import Lock

from streaming_pipeline.alerts.addresses import HOST, split_addresses
from streaming_pipeline.alerts.deliver import Refused, Temporary
from streaming_pipeline.alerts.line import LIMIT_OF_TIMEOUTS, TIMEOUT_SECONDS, Line
from streaming_pipeline.core.errors import PipelineError, UsageError

_SECURITY = ("STARTTLS", "TLS")


@dataclass(frozen=True)
class SmtpSettings:
    """How to reach the mail server; `security` is STARTTLS or TLS (from the start)."""

    host: str
    port: int
    security: str
    sender: str
    recipients: tuple[str, ...]
    ca_location: str | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)

    @classmethod
    def from_secrets(cls, secrets: Mapping[str, str]) -> "SmtpSettings | None":
        """The settings of these secrets; None if no SMTP_ setting is there. Raises `UsageError` naming the one that is wrong."""
        held = {key: text.strip() for key, text in secrets.items() if key.startswith("SMTP_") and text.strip()}
        if not held:
            return None
        for key in ("SMTP_HOST", "SMTP_FROM"):
            if key not in held:
                raise UsageError(f"{key} is not set, but {', '.join(sorted(held))}: add it, or take all SMTP_ settings out.")
        port = held.get("SMTP_PORT", "587")
        if not re.fullmatch(r"[0-9]{1,5}", port) or not 1 <= int(port) <= 65535:
            raise UsageError(f"SMTP_PORT {port!r} is not a port: give 587 (STARTTLS) or 465 (TLS from the start).")
        if not HOST.fullmatch(held["SMTP_HOST"]):
            raise UsageError(f"SMTP_HOST {held['SMTP_HOST']!r} is not a host name such as smtp.example.com.")
        security = held.get("SMTP_SECURITY", "TLS" if int(port) == 465 else "STARTTLS").upper()
        if security not in _SECURITY:
            raise UsageError(f"SMTP_SECURITY {held['SMTP_SECURITY']!r} is not known: give STARTTLS or TLS.")
        if ("SMTP_USERNAME" in held) != ("SMTP_PASSWORD" in held):
            missing = "SMTP_PASSWORD" if "SMTP_USERNAME" in held else "SMTP_USERNAME"
            raise UsageError(f"{missing} is not set: a log-in needs SMTP_USERNAME and SMTP_PASSWORD; leave both out for none.")
        for key in ("SMTP_USERNAME", "SMTP_PASSWORD"):
            if not held.get(key, "").isascii():
                raise UsageError(f"{key} holds letters that a log-in by SMTP cannot carry: use ASCII alone.")
        sender = split_addresses("SMTP_FROM", held["SMTP_FROM"])
        if len(sender) != 1:
            raise UsageError("SMTP_FROM must be one address.")
        return cls(
            host=held["SMTP_HOST"],
            port=int(port),
            security=security,
            sender=sender[0],
            recipients=split_addresses("SMTP_TO", held.get("SMTP_TO", "")),
            ca_location=held.get("SMTP_SSL_CA_LOCATION"),
            username=held.get("SMTP_USERNAME"),
            password=secrets.get("SMTP_PASSWORD") or None,
        )

    @property
    def place(self) -> str:
        """The server, as a message names it."""
        return f"SMTP_HOST {self.host}, port {self.port}"


class MailServer:
    """A connection to the mail server, opened when it is first needed and kept for the next mail.

    The server may be silent for `timeout_seconds`, and a whole delivery, with connection and log-in, may take three times that.
    """

    def __init__(self, settings: SmtpSettings, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        self.settings = settings
        self.timeout_seconds = timeout_seconds
        self._server: smtplib.SMTP | None = None
        self._line = Line()
        self._in_use = Lock()

    def __enter__(self) -> "MailServer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def connect(self) -> None:
        """Connect and log in, unless that is done. Raises `Temporary`, and `PipelineError` where a setting is wrong."""
        with self._delivery():
            pass

    def send(self, mail: EmailMessage, recipients: tuple[str, ...]) -> str | None:
        """Hand a mail over; returns a remark if the server refused it for some recipients for good.

        Raises `Temporary` and `Refused`, and `PipelineError` where a setting is wrong.
        """
        with self._delivery() as server:
            try:
                refused = server.send_message(mail, self.settings.sender, list(recipients))
            except (smtplib.SMTPException, OSError) as error:
                # The next mail goes by a new connection, whatever state this one is in.
                self._leave(is_polite=isinstance(error, (smtplib.SMTPResponseException, smtplib.SMTPRecipientsRefused)))
                raise self._failure(error, recipients) from None
        return self._remark(refused, recipients) if refused else None

    def close(self) -> None:
        """Say good-bye, if there is a connection; a delivery that another thread is about is cut off."""
        if not self._in_use.acquire(blocking=False):
            self._line.cut()
            return
        try:
            with self._line.limited(self.timeout_seconds):
                self._leave()
        finally:
            self._in_use.release()

    @contextmanager
    def _delivery(self) -> Iterator[smtplib.SMTP]:
        """The server, connected; the line is cut if the block takes too long, whatever waits on it."""
        with self._in_use:
            if self._server is None:
                self._line = Line()
            with self._line.limited(self._limit_seconds):
                try:
                    self._server = self._server or self._connect()
                    yield self._server
                finally:
                    if self._line.is_cut:
                        self._leave(is_polite=False)

    @property
    def _limit_seconds(self) -> float:
        return LIMIT_OF_TIMEOUTS * self.timeout_seconds

    def _leave(self, is_polite: bool = True) -> None:
        """Give the connection up, with a good-bye unless the server is not to be waited for."""
        server, self._server = self._server, None
        if server is not None and is_polite:
            with suppress(smtplib.SMTPException, OSError):
                server.quit()
        if server is not None:
            server.close()
        self._line.close()

    def _failure(self, error: Exception, recipients: tuple[str, ...]) -> Exception:
        """What it means that a mail was not taken."""
        if self._line.is_cut:  # it may have been taken: the answer is what is missing
            return Temporary(self._too_slow, is_unclear=True, is_connection=True)
        match error:
            case smtplib.SMTPRecipientsRefused():
                told = _told(error.recipients)
                # Nobody got it. Who was not asked any more, since the server hung up, is not refused.
                later = [address for address in recipients if error.recipients.get(address, (450,))[0] < 500]
                if later:
                    return Temporary(f"refused for now: {told}", left=later if len(later) < len(recipients) else ())
                return Refused(f"refused: {told}")
            case smtplib.SMTPSenderRefused() if error.smtp_code >= 500 and error.smtp_code != 552:  # 552: too large
                return UsageError(f"SMTP_FROM {self.settings.sender} is refused by {self.settings.place}: {_said(error)}.")
            case smtplib.SMTPResponseException() if error.smtp_code >= 500:
                return Refused(f"the server says {_said(error)}")
            case smtplib.SMTPResponseException():
                return Temporary(f"the server says {_said(error)}")
        # It may have been taken here, too.
        return Temporary(f"{self.settings.place} went away ({_short(error)})", is_unclear=True)

    def _remark(self, refused: Mapping[str, tuple[int, bytes]], recipients: tuple[str, ...]) -> str:
        """Some got it and some did not: say so, or raise where it is only for now."""
        later = [address for address in recipients if address in refused and refused[address][0] < 500]
        if later:
            raise Temporary(f"refused for now: {_told(refused)}", left=later, have_it=True)
        return f"refused for {_told(refused)}"

    @property
    def _too_slow(self) -> str:
        return f"{self.settings.place} took longer than {self._limit_seconds:g} s for one delivery, and was cut off"

    def _connect(self) -> smtplib.SMTP:
        ours = self.settings
        context = _context(ours.ca_location)
        server: smtplib.SMTP | None = None
        try:
            server = _Smtp(self._line, context if ours.security == "TLS" else None, ours.host, ours.port, self.timeout_seconds)
            if ours.security == "STARTTLS":
                server.starttls(context=context)
            if ours.username:
                server.login(ours.username, ours.password or "")
            return server
        except BaseException as error:
            is_cut = self._line.is_cut
            if server is not None:
                server.close()
            self._line.close()
            raise (Temporary(self._too_slow, is_connection=True) if is_cut else _translated(error, ours)) from None


class _Smtp(smtplib.SMTP):
    """A connection over a line; with a context over TLS from the start."""

    def __init__(self, line: Line, context: ssl.SSLContext | None, host: str, port: int, timeout: float) -> None:
        self._line, self._context = line, context
        super().__init__(host, port, timeout=timeout)

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        connection = self._line.open((host, port), timeout)
        return self._context.wrap_socket(connection, server_hostname=host) if self._context else connection


def _translated(error: BaseException, ours: SmtpSettings) -> BaseException:
    """What a connection that did not come about means."""
    match error:
        case ssl.SSLCertVerificationError():
            why = error.verify_message
            return UsageError(
                f"{ours.place}: its certificate is not trusted ({why}). Give the name that it is made out to, and the PEM file of a "
                "private CA as SMTP_SSL_CA_LOCATION."
            )
        case ssl.SSLError():
            return UsageError(
                f"{ours.place} does not speak TLS in the way of SMTP_SECURITY {ours.security} ({error.reason or 'no handshake'}): "
                "use port 587 with STARTTLS, or 465 with TLS."
            )
        case smtplib.SMTPNotSupportedError():
            return UsageError(f"{ours.place}: {_short(error)} Mails go over TLS, with or without a log-in, or not at all.")
        case smtplib.SMTPAuthenticationError() if error.smtp_code >= 500:
            return UsageError(f"{ours.place} refuses the log-in: check SMTP_USERNAME and SMTP_PASSWORD (code {error.smtp_code}).")
        case smtplib.SMTPAuthenticationError():  # without the server's words, which may repeat what it was given
            return Temporary(f"{ours.place} does not take a log-in now (code {error.smtp_code})", is_connection=True)
        case smtplib.SMTPResponseException():
            return Temporary(f"{ours.place} says {_said(error)}", is_connection=True)
        case smtplib.SMTPException() if "authentication method" in str(error):
            return UsageError(
                f"{ours.place} offers no log-in by name and password: leave out SMTP_USERNAME and SMTP_PASSWORD, or ask for one."
            )
        case socket.gaierror():
            return Temporary(f"{ours.place}: this host name is not known", is_connection=True)
        case TimeoutError():
            return Temporary(f"{ours.place} does not answer; if it expects TLS from the start, set SMTP_SECURITY=TLS", is_connection=True)
        case smtplib.SMTPException() | OSError() | ValueError():  # ValueError: an answer that cannot be read
            return Temporary(f"{ours.place} cannot be reached ({_short(error)})", is_connection=True)
    return error


def _context(ca_location: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_location)
    except (OSError, ValueError) as error:
        said = getattr(error, "strerror", None) or getattr(error, "reason", None) or "no such path"
        raise PipelineError(f"SMTP_SSL_CA_LOCATION={ca_location} cannot be used ({said}): give a PEM file (BEGIN CERTIFICATE).") from None


def _told(refused: Mapping[str, tuple[int, bytes]]) -> str:
    return "; ".join(f"{address}: {code} {_text(text)}" for address, (code, text) in refused.items())


def _said(error: smtplib.SMTPResponseException) -> str:
    return f"{error.smtp_code} {_text(error.smtp_error)}"


def _text(answer: bytes | str) -> str:
    text = answer.decode(errors="replace") if isinstance(answer, bytes) else str(answer)
    return " ".join(text.split())[:200]


def _short(error: BaseException) -> str:
    return " ".join(str(getattr(error, "strerror", None) or error or type(error).__name__).split())[:200]
