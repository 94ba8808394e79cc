"""Certificates of a network of tests: an authority, the broker's, clients', revocations."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from broker.settings.listeners import Listener
from cli.operate.certificates import Certified, authority, client, server

NOW = datetime.now(UTC)


@dataclass(frozen=True)
class Files:
    """A certificate and its key."""

    certificate: Path
    key: Path


class Network:
    """`localhost`'s certificates, in files below `directory`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.authority = authority("tests", NOW)
        self.ca = self._write("ca", self.authority).certificate
        self.server = self._write(
            "server", server(self.authority, ["localhost", "127.0.0.1"], NOW, 30)
        )

    def _write(self, stem: str, made: Certified) -> Files:
        files = Files(self.directory / f"{stem}.crt", self.directory / f"{stem}.key")
        files.certificate.write_bytes(made.certificate_pem)
        files.key.write_bytes(made.key_pem)
        files.key.chmod(0o600)
        return files

    def client(self, user: str, *, made: datetime = NOW) -> Files:
        """Good for 30 days since it was `made`."""
        return self._write(user, client(self.authority, user, made, 30))

    def renewed(self, days: int = 30) -> Files:
        """Another certificate of the broker, in the same files. Negative days: it has expired."""
        made = server(
            self.authority, ["localhost", "127.0.0.1"], NOW + timedelta(days=-60), 60 + days
        )
        return self._write("server", made)

    def named(self, *names: str) -> Files:
        """A certificate of a broker with other names."""
        return self._write("named", server(self.authority, list(names), NOW, 30))

    def revocations(self, *revoked: Files) -> Path:
        """A list in force that has these."""
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.authority.certificate.subject)
            .last_update(NOW - timedelta(days=1))
            .next_update(NOW + timedelta(days=1))
        )
        for each in revoked:
            serial = x509.load_pem_x509_certificate(each.certificate.read_bytes()).serial_number
            entry = x509.RevokedCertificateBuilder().serial_number(serial)
            builder = builder.add_revoked_certificate(entry.revocation_date(NOW).build())
        path = self.directory / "crl.pem"
        made = builder.sign(self.authority.key, hashes.SHA256())
        path.write_bytes(made.public_bytes(Encoding.PEM))
        return path

    def listener(self, **more: Any) -> Listener:
        """On any free port of this machine."""
        certificate, key = self.server.certificate, self.server.key
        return Listener(port=0, tls_certificate=certificate, tls_key=key, **more)

    def client_context(self, shown: Files | None = None) -> ssl.SSLContext:
        """Of a client that trusts the authority, and shows this certificate."""
        context = ssl.create_default_context(cafile=self.ca)
        if shown is not None:
            context.load_cert_chain(shown.certificate, shown.key)
        return context
