"""A webhook that takes JSON as Slack's does: {"text": …}."""

import http.client
import json
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from functools import partial
from typing import Any

from streaming_pipeline.alerts.deliver import Refused, Temporary
from streaming_pipeline.alerts.line import LIMIT_OF_TIMEOUTS, TIMEOUT_SECONDS, Line
from streaming_pipeline.core.errors import UsageError

SETTING = "ALERT_WEBHOOK_URL"
_WRONG_URL = (401, 403, 404, 410)
_HERE = ("localhost", "127.0.0.1", "::1")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would hand the alert to somebody else, as a GET without it at that."""

    def redirect_request(self, *_: object) -> None:
        return None


class _Over(urllib.request.HTTPHandler, urllib.request.HTTPSHandler):
    """Opens a URL over a line."""

    def __init__(self, line: Line) -> None:
        super().__init__()
        self._line = line

    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(partial(self._connection, http.client.HTTPConnection), request)

    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(partial(self._connection, http.client.HTTPSConnection), request)

    def _connection(self, kind: type[http.client.HTTPConnection], host: str, **options: Any) -> http.client.HTTPConnection:
        connection = kind(host, **options)
        connection._create_connection = self._line.open
        return connection


def url_of(secrets: Mapping[str, str]) -> str | None:
    """The URL of these secrets, if there is one. Raises `UsageError`."""
    return check_url(secrets[SETTING]) if secrets.get(SETTING, "").strip() else None


def check_url(url: str) -> str:
    """The URL, without space around it, if it can be one. Its text is a secret and stands in no message. Raises `UsageError`."""
    url = url.strip()
    try:
        parts = urllib.parse.urlsplit(url)
        parts.hostname.encode("idna")
        is_usable = (
            "@" not in parts.netloc
            and "\\" not in url
            and (parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _HERE))
        )
        parts.port  # noqa: B018  raises for one that is no number
    except (ValueError, AttributeError):  # AttributeError: there is no host
        is_usable = False
    if not is_usable or not url.isascii() or not url.isprintable() or " " in url:
        raise UsageError(f"{SETTING} is not a URL that begins with https://.")
    return url


def post(url: str, text: str, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
    """Post one message: the server may be silent for `timeout_seconds`, and the whole may take three times that.

    Raises `Temporary` for 429, 5xx, silence and slowness, `UsageError` where the URL is no webhook (any more) or leads elsewhere, and
    `Refused` for any other answer but 2xx.
    """
    body = json.dumps({"text": text}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"}, method="POST")
    line, limit = Line(), LIMIT_OF_TIMEOUTS * timeout_seconds
    try:
        with line.limited(limit), urllib.request.build_opener(_NoRedirect, _Over(line)).open(request, timeout=timeout_seconds):
            return
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 429 or error.code >= 500:
            raise Temporary(f"the webhook answers {error.code}") from None
        if 300 <= error.code < 400:
            raise UsageError(
                f"{SETTING} answers with a redirect ({error.code}), which is not followed: it could hand alerts to somebody else. Give the "
                "URL that it leads to, if it is yours."
            ) from None
        if error.code in _WRONG_URL:
            raise UsageError(f"{SETTING} is refused ({error.code}): make a new webhook, or correct it.") from None
        raise Refused(f"the webhook answers {error.code}") from None
    except (OSError, http.client.HTTPException) as error:  # OSError: URLError, too
        if line.is_cut:
            told = f"the webhook took longer than {limit:g} s for one delivery, and was cut off"
            raise Temporary(told, is_unclear=True, is_connection=True) from None
        raise _translated(error) from None
    finally:
        line.close()


def _translated(error: OSError | http.client.HTTPException) -> Exception:
    """What it means that there was no answer."""
    if not isinstance(error, urllib.error.URLError):
        return Temporary(f"the webhook went away ({type(error).__name__})", is_unclear=True)
    if isinstance(error.reason, ssl.SSLCertVerificationError):
        return UsageError(f"{SETTING}: the server's certificate is not trusted ({error.reason.verify_message}).")
    reason = getattr(error.reason, "strerror", None) or type(error.reason).__name__
    return Temporary(f"the webhook cannot be reached ({reason})", is_connection=True)


def escaped(text: str) -> str:
    """A text in which Slack's own marks are none."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
