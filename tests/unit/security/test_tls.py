"""What a listener is secured with, which files are refused and why, and whom a client is."""

from __future__ import annotations

import ssl
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import ConfigError
from broker.security.tls import context_of, doubts, trust, user_of
from broker.settings.listeners import Listener
from tests.support.certificates import Network


@pytest.fixture
def network(tmp_path: Path) -> Network:
    return Network(tmp_path)


def refusal(listener: Listener) -> tuple[str, str]:
    """The setting that is refused, and why."""
    with pytest.raises(ConfigError) as refused:
        context_of(listener)
    return refused.value.key, refused.value.remedy


def test_without_a_certificate_there_is_no_tls() -> None:
    assert context_of(Listener(port=0)) is None


def test_only_what_is_good_today_is_spoken(network: Network) -> None:
    context = context_of(network.listener())
    assert context is not None
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.options & ssl.OP_NO_RENEGOTIATION
    assert all(cipher["aead"] for cipher in context.get_ciphers())
    assert all(cipher["name"].startswith(("ECDHE-", "TLS_")) for cipher in context.get_ciphers())


def test_a_key_may_be_in_the_file_of_its_certificate(network: Network) -> None:
    both = network.directory / "both.pem"
    both.write_bytes(network.server.certificate.read_bytes() + network.server.key.read_bytes())
    assert context_of(Listener(port=0, tls_certificate=both)) is not None


@pytest.mark.parametrize("setting", ["tls_certificate", "tls_key", "tls_client_ca", "tls_crl"])
@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"", "is it PEM?"),
        (b"\x30\x82\x01\x0a" * 100, "is it PEM?"),
        (
            b"-----BEGIN CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----\n-----BEGIN X509 CRL-----\n",
            "",
        ),
    ],
)
def test_a_file_that_is_none_is_refused_by_its_setting(
    network: Network, setting: str, content: bytes | None, why: str
) -> None:
    path = network.directory / "wrong"
    if content is not None:
        path.write_bytes(content)
    crl = network.revocations()
    good = network.listener(
        tls_client_ca=network.ca, tls_client_certificates="required", tls_crl=crl
    )
    assert context_of(good) is not None
    key, said = refusal(replace(good, **cast(Any, {setting: path})))
    assert key in (f"listeners.{setting}", "listeners.tls_certificate")
    assert why in said


def test_the_key_of_another_certificate_is_refused(network: Network) -> None:
    other = network.client("other")
    listener = replace(network.listener(), tls_key=other.key)
    key, said = refusal(listener)
    assert (key, said) == ("listeners.tls_key", f"is not the key of {network.server.certificate}")


def test_a_key_with_a_password_is_refused_and_nobody_is_asked_for_it(network: Network) -> None:
    secret = str(network.directory / "secret.key")
    command = ["openssl", "pkey", "-in", str(network.server.key), "-aes256"]
    subprocess.run([*command, "-passout", "pass:x", "-out", secret], check=True)
    listener = replace(network.listener(), tls_key=network.directory / "secret.key")
    key, said = refusal(listener)
    assert key == "listeners.tls_key"
    assert said.startswith("is encrypted, and nobody is there")


def test_a_certificate_is_doubted_once_it_has_expired(network: Network) -> None:
    for days, doubt in ((1, ""), (-1, "certificate has expired")):
        network.renewed(days)
        listener = network.listener(tls_client_ca=network.ca, tls_client_certificates="required")
        context = context_of(listener)
        assert context is not None
        assert doubts(listener, context) == doubt


def test_it_is_said_of_a_certificate_that_it_expires_soon_and_then_that_it_has(
    network: Network,
) -> None:
    network.renewed(100)
    listener = network.listener()
    context = context_of(listener)
    assert context is not None
    found = trust(listener, context)
    assert found.expires_at_s is not None
    day_s = 86_400
    said = [
        found.at(found.expires_at_s - left_s) for left_s in (15 * day_s, 13 * day_s, day_s, 9, 0)
    ]
    assert said[:3] == ["", "expires in 13 days", "expires in 1 day"]
    assert said[3:] == ["expires within a day", "certificate has expired"]


@given(position=st.floats(0, 1, exclude_max=True), byte=st.integers(0, 255), cut=st.booleans())
def test_a_damaged_file_is_used_or_refused_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, position: float, byte: int, cut: bool
) -> None:
    network = Network(tmp_path_factory.mktemp("n"))
    crl = network.revocations()
    listener = network.listener(
        tls_client_ca=network.ca, tls_client_certificates="optional", tls_crl=crl
    )
    for path in (network.server.certificate, network.server.key, network.ca, crl):
        whole = path.read_bytes()
        at = int(position * len(whole))
        path.write_bytes(whole[:at] if cut else whole[:at] + bytes((byte,)) + whole[at + 1 :])
        complaint = complaint_about(listener)
        assert complaint is None or complaint.key.startswith("listeners.tls_")
        assert "PRIVATE KEY-----\n" not in str(complaint)
        path.write_bytes(whole)


def complaint_about(listener: Listener) -> ConfigError | None:
    try:
        context = context_of(listener)
        assert context is not None
        doubts(listener, context)
    except ConfigError as error:
        return error
    return None


def subject(*names: tuple[str, str]) -> dict[str, Any]:
    return {"subject": tuple((name,) for name in names)}


@pytest.mark.parametrize(
    ("certificate", "named_by", "user"),
    [
        (None, "cn", None),
        ({}, "cn", None),
        (subject(("organizationName", "o"), ("commonName", "a")), "cn", "a"),
        (subject(("commonName", "a"), ("commonName", "b")), "cn", None),
        (subject(("commonName", "a")), "san", None),
        (
            {"subjectAltName": (("IP Address", "::1"), ("DNS", "a.lan"), ("DNS", "b"))},
            "san",
            "a.lan",
        ),
        ({"subjectAltName": (("email", "a@b.example"),)}, "san", "a@b.example"),
        ({"subjectAltName": (("URI", "urn:a"),)}, "san", "urn:a"),
    ],
)
def test_a_user_is_named_by_one_name_of_a_certificate(
    certificate: dict[str, Any] | None, named_by: str, user: str | None
) -> None:
    assert user_of(certificate, named_by) == user


def test_a_key_that_others_may_read_is_told(
    network: Network, caplog: pytest.LogCaptureFixture
) -> None:
    context_of(network.listener())
    assert caplog.messages == []
    network.server.key.chmod(0o644)
    context_of(network.listener())
    said = f"others may read or change the key {network.server.key}: chmod 600 it"
    assert caplog.messages == [said]
