from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

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
