"""Payloads that no valid event has, and the reason that quarantine must give for each."""

import json
from collections.abc import Callable
from typing import Any


def _with(name: str, change: Any) -> Callable[[str], bytes]:
    """The event with another value in one field: `change`, or what it makes of the old value."""

    def spoil(text: str) -> bytes:
        event = json.loads(text)
        return json.dumps(event | {name: change(event[name]) if callable(change) else change}).encode()

    return spoil


def _without(name: str) -> Callable[[str], bytes]:
    return lambda text: json.dumps({key: value for key, value in json.loads(text).items() if key != name}).encode()


SPOILT: dict[str, dict[str, tuple[str, Callable[[str], bytes | None]]]] = {
    "malformed": {
        "cut_off": ("malformed_json", lambda text: text[: len(text) * 2 // 3].encode()),
        "not_json": ("malformed_json", lambda text: b"ERROR cannot serialise " + text.replace('"', "").encode()),
        "trailing_garbage": ("malformed_json", lambda text: text.encode() + b'"}'),
        "invalid_utf8": ("not_utf8", lambda text: text.encode().replace(b'"event_type": "', b'"event_type": "\xff\xfe')),
        "array": ("not_an_object", lambda text: f"[{text}]".encode()),
        "empty": ("empty_payload", lambda text: b""),
        "tombstone": ("null_payload", lambda text: None),
    },
    "wrong_type": {
        "value_text": ("wrong_type:value", _with("value", "abc")),
        "value_nan": ("not_finite:value", _with("value", "NaN")),
        "value_infinity": ("not_finite:value", _with("value", "Infinity")),
        "value_object": ("wrong_type:value", _with("value", lambda value: {"amount": value})),
        "event_type_unknown": ("not_allowed:event_type", _with("event_type", "refund")),
        "timestamp_without_zone": ("no_zone:timestamp", _with("timestamp", lambda text: text.removesuffix("Z"))),
        "timestamp_1970": ("out_of_range:timestamp", _with("timestamp", "1970-01-01T00:00:00.000Z")),
        "timestamp_9999": ("out_of_range:timestamp", _with("timestamp", "9999-12-31T23:59:59.999Z")),
        "timestamp_garbage": ("wrong_type:timestamp", _with("timestamp", "yesterday")),
    },
    "missing_field": {
        f"{name}_{how}": (f"missing:{name}", spoil)
        for name in ("event_id", "event_type", "timestamp", "value")
        for how, spoil in (("absent", _without(name)), ("null", _with(name, None)))
    },
}
"""fault → variant → (the reason that quarantine must give, how the payload is spoilt)"""
