"""JSON that a run leaves for the next one: what is damaged is named and set aside, and stops nothing else."""

import json
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, cast

MOST_BYTES = 16_000_000
DAMAGED = ".damaged"
"""What the name of a file that was set aside ends with."""


EMPTY = "it is empty"
UNREADABLE = (ValueError, TypeError, KeyError, AttributeError, IndexError, OverflowError, RecursionError)
"""What goes wrong where JSON is not as it was written."""


def whole(value: Any) -> int | None:
    """A whole number that JSON holds, or None; raises one of `UNREADABLE` for anything else."""
    return None if value is None else int(value)


def typed(kind: type, held: Mapping[str, Any]) -> Any:
    """A dataclass of texts and numbers as JSON holds it; raises one of `UNREADABLE` for a field of another type."""
    return kind(**{field.name: cast("Callable[[Any], Any]", field.type)(held[field.name]) for field in fields(kind)})


class Damaged(Exception):
    """A file that cannot be read as what it should be; the message says why."""


def read_json(file: Path) -> Any:
    """What a file says. Raises `FileNotFoundError`, and `Damaged` for whatever else keeps it from being read."""
    try:
        held = file.stat()
        if not stat.S_ISREG(held.st_mode):  # to open a pipe would wait for its writer
            raise Damaged("it is no file")
        if held.st_size > MOST_BYTES:
            raise Damaged(f"it is too large, {held.st_size:,} bytes")
        return json.loads(file.read_bytes())
    except FileNotFoundError:
        raise
    except OSError as error:
        raise Damaged(error.strerror or type(error).__name__) from None
    except UNREADABLE:
        raise Damaged("it is not JSON" if held.st_size else EMPTY) from None


def set_aside(file: Path, why: str) -> str:
    """Rename a damaged file, so that it is found once; returns the sentence that says so.

    Where it cannot be renamed, as on some volumes, it stays and is passed over each time.
    """
    aside = file.with_name(f"{file.name[:200]}{DAMAGED}")
    try:
        os.replace(file, aside)
    except OSError as error:
        return f"{_quoted(file)} cannot be read ({why}), nor set aside ({error.strerror or type(error).__name__}): delete it."
    return f"{_quoted(file)} cannot be read ({why}): it was set aside as {aside.name!r}."


def _quoted(file: Path) -> str:
    """A path as a sentence can hold it, whatever its name is made of."""
    return repr(str(file))[1:-1]
