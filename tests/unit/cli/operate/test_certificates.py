"""Certificates are such that TLS libraries accept them, for what they are meant and no more."""

from __future__ import annotations

import ssl
import tempfile
from datetime import UTC, datetime, timedelta

import pytest

from cli.operate.certificates import NotACertificate, authority, client, read_authority, server

NOW = datetime.now(UTC)


def test_what_is_made_is_read_again() -> None:
    made = authority("home", NOW)
    again = read_authority(made.certificate_pem, made.key_pem)
    assert again.certificate == made.certificate
    assert again.key_pem == made.key_pem


@pytest.mark.parametrize("certificate", [b"", b"x", b"-----BEGIN CERTIFICATE-----\n", None])
@pytest.mark.parametrize("key", [b"", b"-----BEGIN PRIVATE KEY-----\n", None])
def test_what_cannot_sign_is_refused(certificate: bytes | None, key: bytes | None) -> None:
    made, other = authority("home", NOW), authority("other", NOW)
    with pytest.raises(NotACertificate):
        read_authority(
            other.certificate_pem if certificate is None else certificate,
            made.key_pem if key is None else key,
        )


def test_a_slow_clock_and_a_long_life_are_thought_of() -> None:
    ca = authority("home", NOW)
    made = server(ca, ["a.lan"], NOW, 30)
    assert made.certificate.not_valid_before_utc < NOW - timedelta(hours=23)
    assert timedelta(days=29) < made.until - NOW <= timedelta(days=30)
    assert ca.until > NOW + timedelta(days=3600)


def test_a_name_that_cannot_be_in_a_certificate_is_refused() -> None:
    ca = authority("home", NOW)
    server(ca, [f"{'a' * 60}.{'b' * 60}.example"], NOW, 30)
    with pytest.raises(ValueError, match="A-label"):
        server(ca, ["käse.example"], NOW, 30)


def test_names_and_addresses_are_what_clients_look_for() -> None:
    ca = authority("home", NOW)
    made = server(ca, ["home.lan", "192.0.2.1", "fd00::2"], NOW, 30)
    for name, good in (
        ("home.lan", True),
        ("192.0.2.1", True),
        ("fd00::2", True),
        ("x.lan", False),
    ):
        assert accepted(ca.certificate_pem, made.certificate_pem + made.key_pem, name) == good


def test_a_clients_certificate_is_no_servers() -> None:
    ca = authority("home", NOW)
    made = client(ca, "home.lan", NOW, 30)
    assert not accepted(ca.certificate_pem, made.certificate_pem + made.key_pem, "home.lan")


def accepted(ca: bytes, certificate_and_key: bytes, name: str) -> bool:
    """Whether a client that trusts `ca` accepts it of a server called `name`."""
    ours = ssl.create_default_context(cadata=ca.decode())
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile() as file:
        file.write(certificate_and_key)
        file.flush()
        theirs.load_cert_chain(file.name)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client_side = ours.wrap_bio(to_client, to_server, server_hostname=name)
    server_side = theirs.wrap_bio(to_server, to_client, server_side=True)
    for side in (client_side, server_side, client_side):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
        except ssl.SSLCertVerificationError:
            return False
    return True
