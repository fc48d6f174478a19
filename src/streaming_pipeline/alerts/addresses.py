"""E-mail addresses in settings and rules."""

import re

from streaming_pipeline.core.errors import UsageError

_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_ADDRESS = re.compile(rf"[A-Za-z0-9!#$%&'*+/=?^_`{{|}}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{{|}}~-]+)*@{_LABEL}(?:\.{_LABEL})*")
HOST = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*\.?|[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*")
"""The name of a host, or its address."""


def address_problem(text: str) -> str | None:
    """What is wrong with an e-mail address, if anything is. Quotes, comments and names beside it are not taken."""
    return None if len(text) <= 254 and _ADDRESS.fullmatch(text) else f"{text!r} is not an e-mail address such as team@example.com"


def split_addresses(setting: str, text: str) -> tuple[str, ...]:
    """Addresses separated by commas, each once; raises `UsageError` naming the setting."""
    found = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    for one in found:
        if problem := address_problem(one):
            raise UsageError(f"{setting}: {problem}.")
    return found
