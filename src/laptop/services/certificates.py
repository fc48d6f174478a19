"""The local broker's certificates: an authority of its own, a certificate for the broker, one for its clients."""

import os
import shutil
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import serialization

VALID_FOR = timedelta(days=365)
RENEW_BEFORE = timedelta(days=7)


@dataclass(frozen=True)
class Certificates:
    """Where the PEM files are; all of them are readable by their owner only."""

    folder: Path

    @property
    def ca(self) -> Path:
        """The authority's certificate: what both sides trust."""
        return self.folder / "ca.pem"

    @property
    def ca_key(self) -> Path:
        """The authority's key, so that certificates can be renewed and those who trust `ca` go on doing so."""
        return self.folder / "ca.key"

    @property
    def server_keystore(self) -> Path:
        """The broker's key and certificate chain in one file, as Kafka wants them."""
        return self.folder / "server.pem"

    @property
    def client_certificate(self) -> Path:
        return self.folder / "client.pem"

    @property
    def client_key(self) -> Path:
        return self.folder / "client.key"


def ensure_certificates(folder: Path) -> Certificates:
    """The certificates in `folder`, made anew where one is missing, unreadable or valid for less than a week.

    Not safe for two processes at once: the broker calls it under its own lock.
    """
    certificates = Certificates(folder)
    if _usable(certificates):
        return certificates
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Certificates(Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent)))
    authority = _authority(certificates)
    not_after = datetime.now(UTC) + VALID_FOR
    server = authority.issue_cert("localhost", "127.0.0.1", common_name="localhost", not_after=not_after)
    client = authority.issue_cert("client.local", common_name="streaming-pipeline", not_after=not_after)
    _write(fresh.ca, authority.cert_pem.bytes())
    _write(fresh.ca_key, pkcs8(authority.private_key_pem.bytes()))
    _write(fresh.server_keystore, pkcs8(server.private_key_pem.bytes()) + _chain(server))
    _write(fresh.client_certificate, _chain(client))
    _write(fresh.client_key, pkcs8(client.private_key_pem.bytes()))
    # The files belong together, so the folder changes as a whole; a crash between these lines leaves none, and they are made anew.
    shutil.rmtree(folder, ignore_errors=True)
    fresh.folder.rename(folder)
    return certificates


def pkcs8(key: bytes) -> bytes:
    """A PEM key in the one form that Kafka reads (`BEGIN PRIVATE KEY`); trustme writes another."""
    return serialization.load_pem_private_key(key, password=None).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _authority(certificates: Certificates) -> trustme.CA:
    """The authority that is there already, if its two files can be read, else a new one."""
    try:
        return trustme.CA.from_pem(certificates.ca.read_bytes(), certificates.ca_key.read_bytes())
    except (OSError, ValueError):
        return trustme.CA(organization_name="streaming-pipeline local broker")


def _chain(leaf: trustme.LeafCert) -> bytes:
    return b"".join(part.bytes() for part in leaf.cert_chain_pems)


def _write(path: Path, content: bytes) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)


def _usable(certificates: Certificates) -> bool:
    soon = datetime.now(UTC) + RENEW_BEFORE
    try:
        for path in (certificates.ca_key, certificates.client_key, certificates.server_keystore):
            serialization.load_pem_private_key(path.read_bytes(), password=None)
        for path in (certificates.ca, certificates.client_certificate, certificates.server_keystore):
            if x509.load_pem_x509_certificates(path.read_bytes())[0].not_valid_after_utc < soon:
                return False
    except (OSError, ValueError):
        return False
    return True
