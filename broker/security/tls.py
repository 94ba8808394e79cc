"""TLS of a listener: from its files to what connections are secured with, and from a client's
certificate to a user.

- TLS 1.2 or newer, and only ciphers that encrypt and authenticate in one, with a key that is made
  for each connection.
- What is loaded is tried before it is used: a handshake with itself, in memory.
"""

from __future__ import annotations

import logging
import re
import ssl
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from broker.errors import ConfigError
from broker.plural import counted
from broker.settings.files import MIB, read_file
from broker.settings.listeners import ADMIN, Listener

if TYPE_CHECKING:
    from cryptography import x509

CIPHERS = "@SECLEVEL=2:ECDHE+AESGCM:ECDHE+CHACHA20"
"""Of TLS 1.2; those of 1.3 are all of this kind."""
ALPN = {"mqtt": "mqtt", "websocket": "http/1.1", ADMIN: "http/1.1"}
"""What a client may name for a protocol of ours, before its first byte tells."""
VERIFY = {
    "none": ssl.CERT_NONE,
    "optional": ssl.CERT_OPTIONAL,
    "required": ssl.CERT_REQUIRED,
}
EXPIRES_SOON_S = 14 * 86_400
HAS_EXPIRED = "certificate has expired"
"""As OpenSSL says it."""
MODE_OF_OTHERS = 0o026
"""Read or write for everybody, write for the group: what a key is not to have."""
CRL_BYTES_MAX = 64 * MIB
"""As much as the largest lists of public authorities."""
CRLS = re.compile(rb"-----BEGIN X509 CRL-----.*?-----END X509 CRL-----\n?", re.DOTALL)
PARTIAL_CHAIN = 0x80000
"""Trust a certificate that is no CA's. (`ssl.VERIFY_X509_PARTIAL_CHAIN`, untyped in 3.11)"""

logger = logging.getLogger(__name__)


def context_of(listener: Listener) -> ssl.SSLContext | None:
    """What the connections of `listener` are secured with; None: with nothing.

    Reads its files, which may take as long as their disk. Raises ConfigError: they cannot be used.
    """
    certificate, key = listener.tls_certificate, listener.tls_key or listener.tls_certificate
    if certificate is None or key is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols([ALPN[each] for each in listener.protocols if each in ALPN])
    _load_certificate(context, certificate, key)
    if listener.tls_client_ca is not None:
        _load_trusted(context, "listeners.tls_client_ca", listener.tls_client_ca, "CERTIFICATE")
        context.verify_mode = VERIFY[listener.tls_client_certificates]
    if listener.tls_crl is not None:
        _load_trusted(context, "listeners.tls_crl", listener.tls_crl, "X509 CRL")
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    return context


def doubts(listener: Listener, context: ssl.SSLContext) -> str:
    """Why a careful client would not trust the certificate of `context`, such as: it has expired.
    "": nothing is known against it. Raises ConfigError: there can be no connection with it."""
    return trust(listener, context).doubt


class Trust(NamedTuple):
    """What a careful client makes of a certificate. `doubt` is "" and `expires_at_s` (seconds since
    the epoch) is known, or the other way round."""

    doubt: str
    expires_at_s: float | None

    def at(self, now_s: float) -> str:
        """What an operator has to know of it now; "": nothing."""
        if self.doubt or self.expires_at_s is None:
            return self.doubt
        left_s = self.expires_at_s - now_s
        if left_s <= 0:
            return HAS_EXPIRED
        if left_s < EXPIRES_SOON_S:
            days = int(left_s / 86_400)
            return f"expires in {counted(days, 'day')}" if days else "expires within a day"
        return ""


def trust(listener: Listener, context: ssl.SSLContext) -> Trust:
    """Raises ConfigError, as `doubts`."""
    certificate = listener.tls_certificate
    assert certificate is not None
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= PARTIAL_CHAIN
    try:
        client.load_verify_locations(cafile=certificate)
        shown = _shake_hands(client, context)
    except ssl.SSLCertVerificationError as error:
        return Trust(error.verify_message, None)
    except ssl.SSLError as error:
        raise ConfigError(
            "listeners.tls_certificate", str(certificate), f"cannot be used: {reason_of(error)}"
        ) from error
    return Trust("", ssl.cert_time_to_seconds(str(shown["notAfter"])))


def _shake_hands(client: ssl.SSLContext, server: ssl.SSLContext) -> Mapping[str, object]:
    """The certificate that the client sees. Raises ssl.SSLError. Ends where the server would ask
    who the client is."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = (
        client.wrap_bio(to_client, to_server),
        server.wrap_bio(to_server, to_client, server_side=True),
    )
    for side in (*sides, sides[0]):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    return sides[0].getpeercert() or {}


class Revocations:
    """What the lists of revocations of a listener have."""

    def __init__(self, listener: Listener) -> None:
        """Reads its file. Raises ConfigError."""
        self._serials: dict[x509.Name, set[int]] = {}
        if (path := listener.tls_crl) is None:
            return
        from cryptography import x509

        try:
            for pem in CRLS.findall(read_file("listeners.tls_crl", path, CRL_BYTES_MAX)):
                listed = x509.load_pem_x509_crl(pem)
                serials = self._serials.setdefault(listed.issuer, set())
                serials.update([entry.serial_number for entry in listed])
        except ValueError as error:
            raise ConfigError("listeners.tls_crl", str(path), f"cannot be used: {error}") from error

    def among(self, certificates: Iterable[bytes]) -> set[bytes]:
        """Those that are revoked, of certificates that were verified, as DER."""
        revoked: set[bytes] = set()
        if not self._serials:
            return revoked
        from cryptography import x509

        for der in certificates:
            certificate = x509.load_der_x509_certificate(der)
            if certificate.serial_number in self._serials.get(certificate.issuer, ()):
                revoked.add(der)
        return revoked


def _load_certificate(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    _expect(certificate, "listeners.tls_certificate", "CERTIFICATE")
    _expect(key, "listeners.tls_key", "PRIVATE KEY")
    if key.stat().st_mode & MODE_OF_OTHERS:
        logger.warning("others may read or change the key %s: chmod 600 it", key)
    try:
        # Without a password of ours the library would ask for one on the terminal, and wait.
        context.load_cert_chain(certificate, key, password=_no_password)
    except _Encrypted:
        raise ConfigError(
            "listeners.tls_key",
            str(key),
            "is encrypted, and nobody is there to type its password: store it without one, mode"
            " 0600",
        ) from None
    except (ssl.SSLError, OSError, ValueError) as error:
        if getattr(error, "reason", "") == "KEY_VALUES_MISMATCH":
            raise ConfigError(
                "listeners.tls_key", str(key), f"is not the key of {certificate}"
            ) from error
        raise ConfigError(
            "listeners.tls_certificate",
            str(certificate),
            f"cannot be used with {key}: {reason_of(error)}",
        ) from error


class _Encrypted(Exception):
    """The key has a password."""


def _no_password() -> str:
    raise _Encrypted


def _load_trusted(context: ssl.SSLContext, setting: str, path: Path, kind: str) -> None:
    _expect(path, setting, kind)
    try:
        context.load_verify_locations(cafile=path)
    except (ssl.SSLError, OSError, ValueError) as error:
        raise ConfigError(setting, str(path), f"cannot be used: {reason_of(error)}") from error


def _expect(path: Path, setting: str, kind: str) -> None:
    """Raises ConfigError: the file cannot be read, or has no PEM block of this kind."""
    text = read_file(setting, path, CRL_BYTES_MAX)
    if f"{kind}-----".encode() not in text:
        raise ConfigError(setting, str(path), f"has no -----BEGIN {kind}-----: is it PEM?")


def reason_of(error: Exception) -> str:
    """An error of the library in words."""
    reason = getattr(error, "reason", None)
    return str(reason).replace("_", " ").lower() if reason else str(error)


def user_of(certificate: Mapping[str, Any] | None, named_by: str) -> str | None:
    """Whom a client's certificate, as `getpeercert` gives it, names; None: nobody.

    `named_by` is `tls_user`: "cn", the Common Name, or "san", the first alternative name that is a
    DNS name, an e-mail address or a URI. Of several Common Names none counts.
    """
    if not certificate:
        return None
    if named_by == "san":
        names = [
            str(name)
            for kind, name in certificate.get("subjectAltName", ())
            if kind in ("DNS", "email", "URI")
        ]
        return names[0] if names else None
    names = [
        str(value)
        for part in certificate.get("subject", ())
        for kind, value in part
        if kind == "commonName"
    ]
    return names[0] if len(names) == 1 else None
