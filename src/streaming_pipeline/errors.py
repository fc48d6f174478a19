"""The one exception that a user is meant to read."""


class PipelineError(Exception):
    """Something a user can put right: the message names the setting, file or field, what was wrong and what to do.

    The command line prints the message alone (exit code 1) and never a traceback; its subclass `UsageError` exits with 2.
    """


class UsageError(PipelineError):
    """Wrong use: an unknown job, parameter, key or option, or a file that cannot be read as what it should be."""
