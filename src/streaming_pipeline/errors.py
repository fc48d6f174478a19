"""The one exception that a user is meant to read."""

import re


class PipelineError(Exception):
    """Something a user can put right: the message names the setting, file or field, what was wrong and what to do.

    The command line prints the message alone (exit code 1) and never a traceback; its subclass `UsageError` exits with 2.
    """


class UsageError(PipelineError):
    """Wrong use: an unknown job, parameter, key or option, or a file that cannot be read as what it should be."""


_STORAGE = re.compile(
    r"^(?:.*?(?:Exception|Error): )?(.*(?:No space left on device|Disk quota exceeded|Read-only file system|Permission denied"
    r"|[Nn]ot a directory|Mkdirs failed to create).*)$",
    re.MULTILINE,
)


def storage_fault(error: BaseException) -> str | None:
    """What the operating system says of a disk or folder that cannot be written, if that is what an error of Spark's or Python's tells."""
    found = _STORAGE.search(whole_story(error))
    return found[1].strip()[:400] if found else None


def whole_story(error: BaseException) -> str:
    """What an error and the causes behind it say, one below the other."""
    said = []
    cause: BaseException | None = error
    while cause is not None:
        said.append(str(cause))
        cause = getattr(cause, "_cause", None) or cause.__cause__  # Spark's errors keep theirs to themselves
    return "\n".join(said)
