from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from broker.config import Config
from broker.errors import ConfigError
from broker.settings.listeners import Listener

FILE = Path("file")


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"port": 1, "unix_socket": Path("s")},
        {"port": 1, "protocols": ()},
        {"port": 1, "protocols": ("mqtt", "http")},
        {"port": 1, "tls_key": FILE},
        {"port": 1, "tls_client_ca": FILE},
        {"port": 1, "tls_certificate": FILE, "tls_client_ca": FILE},
        {"port": 1, "tls_certificate": FILE, "tls_client_certificates": "required"},
        {"port": 1, "tls_certificate": FILE, "tls_crl": FILE},
        {"port": 1, "tls_client_certificates": "always"},
        {"port": 1, "tls_user": "o"},
    ],
)
def test_what_cannot_be_listened_on_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"^listeners"):
        Listener(**values)


ADMINISTRATION = ("admin",)


@pytest.mark.parametrize(
    "where",
    [
        {},
        {"host": "::1"},
        {"host": "0.0.0.0", "allow_without_tls": True},
        {"host": "0.0.0.0", "tls_certificate": Path("c")},
    ],
)
def test_administration_listens_here_or_by_tls_or_where_that_is_meant(
    where: dict[str, Any],
) -> None:
    listener = Listener(port=1, protocols=ADMINISTRATION, **where)
    assert listener.administers
    config = Config(listeners=(listener, Listener(port=2)))
    assert config.open_host is None, "without users nobody comes in there"


@pytest.mark.parametrize(
    ("more", "key"),
    [
        ({"host": "0.0.0.0"}, "listeners.host"),
        ({"host": "example.org"}, "listeners.host"),
        ({"allow_anonymous": True}, "listeners.allow_anonymous"),
        ({"port": None, "unix_socket": Path("s")}, "listeners.unix_socket"),
        ({"protocols": ("admin", "lines")}, "listeners.protocols"),
    ],
)
def test_administration_is_not_for_everybody(more: dict[str, Any], key: str) -> None:
    asked: dict[str, Any] = {"port": 1, "protocols": ADMINISTRATION}
    with pytest.raises(ConfigError) as refused:
        Listener(**(asked | more))
    assert refused.value.key == key
