from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from broker.errors import ConfigError
from broker.store.shared.access import Access
from tests.support.certificates import Network


def file(path: Path, content: str = "") -> Path:
    path.write_text(content)
    return path


def test_whoever_has_nothing_to_show_connects_like_anybody() -> None:
    assert Access().options() == {}


def test_a_password_may_have_colons(tmp_path: Path) -> None:
    path = file(tmp_path / "c", "broker:p:q \n")
    assert Access(path).options() == {"user": "broker", "password": "p:q"}


def test_with_a_certificate_or_an_authority_it_is_tls(tmp_path: Path) -> None:
    network = Network(tmp_path)
    ours = network.client("b")
    for access in (
        Access(ca=network.ca),
        Access(ca=network.ca, cert=ours.certificate, key=ours.key),
    ):
        context = access.options()["tls"]
        assert isinstance(context, ssl.SSLContext)
        assert (context.check_hostname, context.verify_mode) == (True, ssl.CERT_REQUIRED)


def test_what_cannot_be_used_is_named(tmp_path: Path) -> None:
    bad, none = file(tmp_path / "bad", "no colon"), tmp_path / "none"
    ca = Network(tmp_path).ca
    for access, key in (
        (Access(bad), "store_credentials"),
        (Access(none), "store_credentials"),
        (Access(file(tmp_path / "two", "a:b\nc:d")), "store_credentials"),
        (Access(ca=bad), "store_ca"),
        (Access(ca=none), "store_ca"),
        (Access(ca=ca, cert=bad), "store_cert"),
        (Access(ca=ca, key=bad), "store_key"),
    ):
        with pytest.raises(ConfigError) as failed:
            access.options()
        assert failed.value.key == key
