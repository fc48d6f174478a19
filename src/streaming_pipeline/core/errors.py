"""The one exception that a user is meant to read."""

import re
from urllib.parse import unquote


class PipelineError(Exception):
    """Something a user can put right: the message names the setting, file or field, what was wrong and what to do.

    The command line prints the message alone (exit code 1) and never a traceback; its subclass `UsageError` exits with 2.
    """


class UsageError(PipelineError):
    """Wrong use: an unknown job, parameter, key or option, or a file that cannot be read as what it should be."""


_STORAGE = re.compile(
    r"^(?:.*?(?:Exception|Error): )?(.*(?:No space left on device|Disk quota exceeded|Read-only file system|Permission denied"
    r"|File name too long|[Nn]ot a directory|Mkdirs failed to create).*)$",
    re.MULTILINE,
)


def storage_fault(error: BaseException) -> str | None:
    """What the operating system says of a disk or folder that cannot be written, if that is what an error of Spark's or Python's tells."""
    found = _STORAGE.search(whole_story(error))
    return found[1].strip()[:400] if found else None


_TABLE_FILE = re.compile(
    r"(?:reading file |Checksum error: |TRUNCATED_TRANSACTION_LOG\] )file:/*?(/[^/\n].*?)(?:: Unable|\. |\.$| at \d)", re.M
)
_TABLE = re.compile(r"/([^/]+)\.db/([^/]+)/")


def damaged_table(error: BaseException) -> PipelineError | None:
    """The error that names the table and the file that Spark could not read; None if this error is about something else."""
    try:
        files = _TABLE_FILE.findall(whole_story(error))
    except Exception:  # Java, which is asked what it has to say, is gone
        return None
    for file in map(unquote, files):
        if table := _TABLE.search(file):
            return damaged(".".join(table.groups()), f"{file} is missing or cannot be read")
    return None


def damaged(table: str, what: str) -> PipelineError:
    """The error that names a damaged table, what is wrong with it, and the cure."""
    return PipelineError(
        f"Table {table} is damaged: {what}. Restore its folder from a backup, or go back behind the damage: docs/runbook.md says how, "
        'under "What a damaged table means".'
    )


def whole_story(error: BaseException) -> str:
    """What an error and the causes behind it say, one below the other."""
    said = []
    cause: BaseException | None = error
    while cause is not None:
        said.append(str(cause))
        cause = getattr(cause, "_cause", None) or cause.__cause__  # Spark's errors keep theirs to themselves
    return "\n".join(said)
