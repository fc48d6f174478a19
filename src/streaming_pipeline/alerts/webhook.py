"""A webhook that takes JSON as Slack's does: {"text": …}."""

import http.client
import json
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping

from streaming_pipeline.alerts.deliver import Refused, Temporary
from streaming_pipeline.errors import UsageError

SETTING = "ALERT_WEBHOOK_URL"
TIMEOUT_SECONDS = 20.0
_WRONG_URL = (401, 403, 404, 410)
_HERE = ("localhost", "127.0.0.1", "::1")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would hand the alert to somebody else, as a GET without it at that."""

    def redirect_request(self, *_: object) -> None:
        return None


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
    if not is_usable or not url.isascii() or any(character.isspace() for character in url):
        raise UsageError(f"{SETTING} is not a URL that begins with https://.")
    return url


def post(url: str, text: str) -> None:
    """Post one message. Raises `Temporary` for 429, 5xx and silence, `UsageError` where the URL is no webhook (any more), and `Refused`
    for any other answer but 2xx."""
    body = json.dumps({"text": text}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"}, method="POST")
    try:
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=TIMEOUT_SECONDS):
            return
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 429 or error.code >= 500:
            raise Temporary(f"the webhook answers {error.code}") from None
        if error.code in _WRONG_URL:
            raise UsageError(f"{SETTING} is refused ({error.code}): make a new webhook, or correct it.") from None
        raise Refused(f"the webhook answers {error.code}") from None
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            raise UsageError(f"{SETTING}: the server's certificate is not trusted ({error.reason.verify_message}).") from None
        reason = getattr(error.reason, "strerror", None) or type(error.reason).__name__
        raise Temporary(f"the webhook cannot be reached ({reason})", is_connection=True) from None
    except (OSError, http.client.HTTPException) as error:
        raise Temporary(f"the webhook went away ({type(error).__name__})", is_unclear=True) from None


def escaped(text: str) -> str:
    """A text in which Slack's own marks are none."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
