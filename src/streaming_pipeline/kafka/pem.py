"""The PEM files of a connection to Kafka: what they hold for Spark's client, and what is wrong with them.

Each function names the setting in its errors, since the file is the user's.
"""

import re
import ssl
from datetime import UTC, datetime
from pathlib import Path

from streaming_pipeline.core.errors import PipelineError
from streaming_pipeline.core.settings import KafkaSettings

_PEM_BLOCK = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)


def check_files(kafka: KafkaSettings) -> None:
    """Raise `PipelineError` for whatever can be seen to be wrong with the PEM files without asking a broker."""
    if kafka.ssl_ca_location:
        certificates("KAFKA_SSL_CA_LOCATION", kafka.ssl_ca_location)
    if kafka.security_protocol != "SSL":
        return
    chain = certificates("KAFKA_SSL_CERTIFICATE_LOCATION", kafka.ssl_certificate_location)
    _key("KAFKA_SSL_KEY_LOCATION", kafka.ssl_key_location)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(kafka.ssl_certificate_location or "", kafka.ssl_key_location)
    except (ssl.SSLError, OSError) as error:
        raise PipelineError(
            f"KAFKA_SSL_KEY_LOCATION={kafka.ssl_key_location} does not fit KAFKA_SSL_CERTIFICATE_LOCATION="
            f"{kafka.ssl_certificate_location} ({error.strerror or error}): name a certificate and the key that belongs to it."
        ) from None
    expired = _expired_on(chain)
    if expired:
        raise PipelineError(
            f"KAFKA_SSL_CERTIFICATE_LOCATION={kafka.ssl_certificate_location}: the certificate expired on {expired}: get a new one."
        )


def _expired_on(certificates: str) -> str | None:
    """The day on which the first certificate expired, if it has."""
    try:
        from cryptography import x509
    except ImportError:
        return None  # then the broker's refusal says it, less clearly
    until = x509.load_pem_x509_certificate(certificates.encode()).not_valid_after_utc
    return f"{until:%Y-%m-%d}" if until < datetime.now(UTC) else None


def _read_pem(setting: str, location: str | None) -> list[tuple[str, str]]:
    """(kind, text) of each PEM block of a file."""
    if not location:
        raise PipelineError(f"{setting} is not set: give the path of a PEM file.")
    try:
        text = Path(location).read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise PipelineError(f"{setting}={location} cannot be read ({error.strerror}): give the path of a PEM file.") from None
    return [(match[1], match[0]) for match in _PEM_BLOCK.finditer(text)]


def certificates(setting: str, location: str | None) -> str:
    """The certificates of a PEM file, without what else stands in it (comments, a key). Raises `PipelineError` where they are none."""
    blocks = [text for kind, text in _read_pem(setting, location) if kind == "CERTIFICATE"]
    try:
        if not blocks:
            raise ValueError
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata="\n".join(blocks))
    except (ssl.SSLError, ValueError):
        raise PipelineError(f"{setting}={location} holds no certificate that can be read: give a PEM file (BEGIN CERTIFICATE).") from None
    return "\n".join(blocks) + "\n"


def _key(setting: str, location: str | None) -> tuple[str, str]:
    """(kind, text) of the private key in a PEM file. Raises `PipelineError` where there is none, or an encrypted one."""
    for kind, text in _read_pem(setting, location):
        if kind.endswith("PRIVATE KEY"):
            if kind.startswith("ENCRYPTED") or "ENCRYPTED" in text:
                raise PipelineError(f"{setting}={location} is encrypted: decrypt it (openssl pkcs8 -topk8 -nocrypt -in … -out …).")
            return kind, text
    raise PipelineError(f"{setting}={location} holds no private key: give a PEM file (BEGIN PRIVATE KEY).")


def pkcs8_key(setting: str, location: str | None) -> str:
    """The private key in the one form that a Java client reads.

    The line before it is no part of the PEM block: Spark hides an option in plans and logs if this word stands in its value.
    """
    kind, text = _key(setting, location)
    if kind != "PRIVATE KEY":
        try:
            from cryptography.hazmat.primitives import serialization
        except ImportError:
            raise PipelineError(
                f"{setting}={location} is a {kind}, Spark needs PKCS#8: convert it (openssl pkcs8 -topk8 -nocrypt -in … -out …)."
            ) from None
        try:
            key = serialization.load_pem_private_key(text.encode(), password=None)
        except ValueError:
            raise PipelineError(f"{setting}={location} holds no key that can be read: give a PEM file (BEGIN PRIVATE KEY).") from None
        encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        text = key.private_bytes(encoding, form, serialization.NoEncryption()).decode().strip()
    return f"secret\n{text}\n"
