"""E-mail addresses in settings and rules."""

import re
from email.headerregistry import Address

from streaming_pipeline.errors import UsageError


def address_problem(text: str) -> str | None:
    """What is wrong with an e-mail address, if anything is."""
    try:
        address = Address(addr_spec=text)
        if address.username and re.fullmatch(r"[A-Za-z0-9.-]+", address.domain) and text.isascii() and text.isprintable():
            return None
    except (ValueError, IndexError, LookupError):  # the parser of the standard library has more than one way to stumble
        pass
    return f"{text!r} is not an e-mail address such as team@example.com"


def split_addresses(setting: str, text: str) -> tuple[str, ...]:
    """Addresses separated by commas; raises `UsageError` naming the setting."""
    found = tuple(part.strip() for part in text.split(",") if part.strip())
    for one in found:
        if problem := address_problem(one):
            raise UsageError(f"{setting}: {problem}.")
    return found
