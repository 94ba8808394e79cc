"""Files that settings name: no start and no reload waits for one, or is filled by it."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

import pytest

from broker.config import Config
from broker.errors import ConfigError
from broker.security import tls
from broker.security.tls import Revocations, context_of
from broker.security.tokens import Claims, Tokens
from broker.settings.files import read_file
from broker.settings.listeners import Listener


@pytest.fixture(params=["pipe", "directory", "/dev/zero", "/dev/null", "huge"])
def no_file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "there"
    match request.param:
        case "pipe":
            os.mkfifo(path)
        case "directory":
            path.mkdir()
        case "huge":
            path.touch()
            os.truncate(path, 1 << 40)
        case device:
            path.symlink_to(device)
    return path


def test_what_is_there_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "there"
    path.write_bytes(b"12345")
    assert read_file("s", path, 5) == b"12345"
    with pytest.raises(ConfigError, match="has more than"):
        read_file("s", path, 4)
    with pytest.raises(ConfigError, match="No such file"):
        read_file("s", tmp_path / "none")


def test_the_settings_themselves(no_file: Path) -> None:
    with pytest.raises(ConfigError, match=r"is no file|has more than"):
        Config.load(no_file, {})


def test_what_tls_takes(no_file: Path, tmp_path: Path) -> None:
    pem = tmp_path / "all.pem"
    pem.write_text("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n")
    for certificate, key in ((no_file, None), (pem, no_file)):
        with pytest.raises(ConfigError, match=r"is no file|has more than"):
            context_of(Listener(port=1, tls_certificate=certificate, tls_key=key))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    for kind in ("CERTIFICATE", "X509 CRL"):
        with pytest.raises(ConfigError, match=r"is no file|has more than"):
            tls._load_trusted(context, "s", no_file, kind)
    with pytest.raises(ConfigError, match=r"is no file|has more than"):
        Revocations(
            Listener(
                port=1,
                tls_certificate=pem,
                tls_client_ca=pem,
                tls_crl=no_file,
                tls_client_certificates="required",
            )
        )


def test_keys_of_tokens(no_file: Path) -> None:
    with pytest.raises(ConfigError, match=r"is no file|has more than"):
        Tokens(no_file, Claims())
