"""`.env` and the environment: on a laptop they hold what a secret scope holds on Databricks."""

import io
import os
from pathlib import Path

from dotenv.parser import parse_stream

from streaming_pipeline.core.errors import UsageError
from streaming_pipeline.core.settings import SECRET_KEYS


def read_secrets(env_file: Path) -> dict[str, str]:
    """The `KAFKA_*`, `SMTP_*` and `ALERT_*` settings of `env_file` (if there is one), overridden by environment variables of the same name.

    A relative path of a PEM file counts from the folder of `env_file`. Raises `UsageError` naming file and line for a line that
    cannot be read, and for a setting of ours that is misspelt.
    """
    found: dict[str, str] = {}
    if env_file.is_file():
        try:
            text = env_file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{env_file} cannot be read: {getattr(error, 'strerror', None) or 'it is not UTF-8 text'}.") from None
        for binding in parse_stream(io.StringIO(text)):
            where = f"{env_file} line {binding.original.line}"
            if binding.error or (binding.key and binding.value is None):
                raise UsageError(f"{where}: write NAME=value, with quotes around a value that holds spaces or '#'.")
            if binding.key is None:
                continue
            if binding.key.startswith(("KAFKA_", "SMTP_", "ALERT_")) and binding.key not in SECRET_KEYS:
                known = ", ".join(key for key in SECRET_KEYS if key.split("_")[0] == binding.key.split("_")[0])
                raise UsageError(f"{where}: {binding.key} is no setting. Known settings: {known}.")
            if binding.key in SECRET_KEYS and binding.value:
                is_path = binding.key.endswith("_LOCATION")
                found[binding.key] = str((env_file.parent / binding.value).resolve()) if is_path else binding.value
    return found | {key: os.environ[key] for key in SECRET_KEYS if os.environ.get(key)}
