"""Certificates for a network of one's own: a CA, and what it signs.

All keys are of the curve P-256: every TLS library knows it, and a handshake costs the broker a
tenth of one with RSA.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_DAYS = 3650
CERTIFICATE_DAYS = 820
"""Apple's devices accept no server certificate that is good for more than 825."""
COMMON_NAME_MAX = 64
SLOW_CLOCKS = timedelta(days=1)
"""A certificate is good since so long before it was made, for devices whose clock is slow."""


class NotACertificate(ValueError):
    """The bytes are none of an authority as it is made here."""


@dataclass(frozen=True)
class Certified:
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def certificate_pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    @property
    def until(self) -> datetime:
        return self.certificate.not_valid_after_utc


def authority(name: str, now: datetime) -> Certified:
    """A CA that signs certificates, and no other CAs."""
    key = ec.generate_private_key(ec.SECP256R1())
    usage = _usage(key_cert_sign=True, crl_sign=True)
    builder = (
        _builder(name, key, now, AUTHORITY_DAYS)
        .issuer_name(_name(name))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
    )
    return Certified(builder.sign(key, hashes.SHA256()), key)


def server(signer: Certified, names: list[str], now: datetime, days: int) -> Certified:
    """For a broker that is reached by `names`: host names and IP addresses. Raises ValueError: one
    of them cannot be in a certificate."""
    alternatives = x509.SubjectAlternativeName([_alternative(name) for name in names])
    return _signed(
        signer,
        names[0][:COMMON_NAME_MAX],
        now,
        days,
        ExtendedKeyUsageOID.SERVER_AUTH,
        alternatives=alternatives,
    )


def client(signer: Certified, user: str, now: datetime, days: int) -> Certified:
    """For a client: `user` is its Common Name. Raises ValueError."""
    return _signed(signer, user, now, days, ExtendedKeyUsageOID.CLIENT_AUTH)


def read_authority(certificate: bytes, key: bytes) -> Certified:
    """What `authority` made, from its PEMs. Raises NotACertificate."""
    try:
        loaded = x509.load_pem_x509_certificate(certificate)
        private = serialization.load_pem_private_key(key, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise NotACertificate(str(error)) from error
    if not isinstance(private, ec.EllipticCurvePrivateKey):
        raise NotACertificate("its key is not of an elliptic curve")
    if private.public_key() != loaded.public_key():
        raise NotACertificate("the key is not that of the certificate")
    return Certified(loaded, private)


def revocations(signer: Certified, revoked: Mapping[int, datetime], now: datetime) -> bytes:
    """The list of revocations, as PEM: serial numbers, and when each was revoked. It is in force as
    long as the authority, since a list that has run out would keep every client out."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(signer.certificate.subject)
        .last_update(now - SLOW_CLOCKS)
        .next_update(signer.until)
    )
    for serial, at in revoked.items():
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(at)
        builder = builder.add_revoked_certificate(entry.build())
    return builder.sign(signer.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def read_revocations(signer: Certified, content: bytes) -> dict[int, datetime]:
    """What `revocations` made. Raises NotACertificate: it is no list of this authority."""
    try:
        listed = x509.load_pem_x509_crl(content)
    except ValueError as error:
        raise NotACertificate(f"the list of revocations is damaged: {error}") from error
    if not listed.is_signature_valid(signer.key.public_key()):
        raise NotACertificate("the list of revocations is of another authority")
    return {each.serial_number: each.revocation_date_utc for each in listed}


def serial_of(signer: Certified, content: bytes) -> int:
    """Of a certificate that the authority has signed, as PEM. Raises NotACertificate."""
    try:
        certificate = x509.load_pem_x509_certificate(content)
        certificate.verify_directly_issued_by(signer.certificate)
    except (ValueError, TypeError, InvalidSignature) as error:
        raise NotACertificate(f"the authority has not signed it: {error}") from error
    return certificate.serial_number


def _signed(
    signer: Certified,
    name: str,
    now: datetime,
    days: int,
    purpose: x509.ObjectIdentifier,
    alternatives: x509.SubjectAlternativeName | None = None,
) -> Certified:
    key = ec.generate_private_key(ec.SECP256R1())
    signer_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.key.public_key())
    builder = (
        _builder(name, key, now, days)
        .issuer_name(signer.certificate.subject)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(signer_key, critical=False)
    )
    if alternatives is not None:
        builder = builder.add_extension(alternatives, critical=False)
    return Certified(builder.sign(signer.key, hashes.SHA256()), key)


def _builder(
    name: str, key: ec.EllipticCurvePrivateKey, now: datetime, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SLOW_CLOCKS)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )
