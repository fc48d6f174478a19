"""Looks for secrets in whatever a run left: texts, compressed event logs, Parquet files, databases."""

import html
import json
import re
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from streaming_pipeline.core.settings import KafkaSettings
from streaming_pipeline.kafka.connection import spark_options

_COMPRESSED = {".zstd": "zstd", ".zst": "zstd", ".gz": "gzip"}


@dataclass(frozen=True)
class Secrets:
    """What must stand nowhere: each secret's name, and the texts any of which would give it away."""

    texts: dict[str, tuple[str, ...]]

    @classmethod
    def of(cls, settings: Mapping[str, str]) -> "Secrets":
        """Passwords, and of a private key each line, as the file has it and as Spark is handed it."""
        found = {name: _forms(settings[name]) for name in ("KAFKA_API_SECRET", "SMTP_PASSWORD") if settings.get(name)}
        if settings.get("KAFKA_SSL_KEY_LOCATION"):
            handed_on = spark_options(KafkaSettings.from_secrets(settings))["kafka.ssl.keystore.key"]
            found["private key"] = key_lines(Path(settings["KAFKA_SSL_KEY_LOCATION"]).read_text() + handed_on)
        assert found and all(texts and min(map(len, texts)) >= 12 for texts in found.values()), "a secret that chance may write"
        return cls(found)

    def in_texts(self, texts: Mapping[str, str]) -> dict[str, list[str]]:
        """Where in these texts which secrets stand."""
        seen = {where: [name for name, forms in self.texts.items() if any(form in text for form in forms)] for where, text in texts.items()}
        return {where: names for where, names in seen.items() if names}

    def in_files(self, *folders: Path) -> dict[str, list[str]]:
        """Which files below these folders hold which secrets."""
        found = {}
        for folder in folders:
            files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
            assert files, f"{folder} is empty"
            for path in files:
                found |= self.in_texts({str(path.relative_to(folder)): _content(path)})
        return found


def key_lines(pem: str) -> tuple[str, ...]:
    """The lines of the private keys in a PEM text that are the key itself, without a short last one."""
    keys = re.findall(r"BEGIN [A-Z ]*PRIVATE KEY-----\n(.*?)\n-----END", pem, re.DOTALL)
    return tuple({line for key in keys for line in key.splitlines() if len(line) > 40})


def _forms(secret: str) -> tuple[str, ...]:
    return tuple({secret, html.escape(secret), html.escape(secret, quote=False), json.dumps(secret)[1:-1], repr(secret)[1:-1]})


def _content(path: Path) -> str:
    """All that a file says, unpacked; a file that is still written is read as far as it is."""
    raw = path.read_bytes()
    compressed = _COMPRESSED.get(Path(path.name.removesuffix(".inprogress")).suffix)
    if raw[:4] == b"PAR1":
        return repr(pq.ParquetFile(path).read().to_pylist())
    if raw[:15] == b"SQLite format 3":
        with sqlite3.connect(path) as database:
            return "\n".join(database.iterdump())
    if compressed:
        return _unpacked(path, compressed)
    assert raw[:8] != b"LZ4Block" and raw[:4] not in (b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18"), f"{path} is compressed"
    return raw.decode(errors="replace")


def _unpacked(path: Path, how: str) -> str:
    content = bytearray()
    with pa.OSFile(str(path)) as file, pa.CompressedInputStream(file, how) as stream:
        try:
            while more := stream.read(4096):
                content += more
        except OSError:  # cut off in the middle of a block
            pass
    assert content, f"{path} could not be unpacked"
    return content.decode(errors="replace")
