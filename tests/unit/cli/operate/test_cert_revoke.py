"""What `pubsub cert revoke` makes of whose certificate, and that it never makes a list worse."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from broker.config import Config
from broker.net.tls import TlsFailed, TlsStream
from broker.security.tls import context_of
from cli.operate.cert_create import create
from cli.operate.cert_revoke import revoke
from cli.terminal.failure import CommandFailed
from tests.support.tls_client import TlsClient


@pytest.fixture
def certs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """With a listener in `broker.toml` that asks for certificates, of kitchen and cellar."""
    certs = tmp_path / "certs"
    create(certs, ["localhost"], None, 30, force=False)
    settings = capsys.readouterr().out
    create(certs, [], "kitchen", 30, force=False)
    (certs / "broker.toml").write_text(settings + capsys.readouterr().out)
    create(certs, [], "cellar", 30, force=False)
    return certs


def let_in(certs: Path, stem: str, key: str = "") -> bool:
    """Whether a listener accepts that certificate now."""
    (listener,) = Config.load(certs / "broker.toml", {}).listeners
    context = context_of(listener)
    assert context is not None
    ours = ssl.create_default_context(cafile=certs / "ca.crt")
    ours.load_cert_chain(certs / f"{stem}.crt", certs / f"{key or stem}.key")
    stream, client = TlsStream(context), TlsClient(ours)
    done = client.shake_hands()
    try:
        while not (done and stream.established):
            stream.receive(client.sent())
            done = client.shake_hands(stream.data_to_send())
    except TlsFailed as error:
        return "certificate revoked" not in str(error)
    return True


def test_who_is_revoked_is_refused_and_others_are_not(certs: Path) -> None:
    assert let_in(certs, "kitchen")
    assert let_in(certs, "cellar")
    revoke(certs, "kitchen")
    assert not let_in(certs, "kitchen")
    assert let_in(certs, "cellar")
    revoke(certs, "cellar")
    assert not let_in(certs, "kitchen"), "it is still in the list"
    assert not let_in(certs, "cellar")


def test_a_certificate_that_was_replaced_can_be_revoked_later(certs: Path) -> None:
    old_key = (certs / "kitchen.key").read_bytes()
    create(certs, [], "kitchen", 30, force=True)
    (certs / "kitchen.old.key").write_bytes(old_key)
    assert let_in(certs, "kitchen.old")
    revoke(certs, str(certs / "kitchen.old.crt"))
    assert not let_in(certs, "kitchen.old")
    assert let_in(certs, "kitchen")


def test_to_revoke_it_twice_changes_nothing(
    certs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    revoke(certs, "kitchen")
    before = (certs / "crl.pem").read_bytes()
    capsys.readouterr()
    revoke(certs, "kitchen")
    assert (certs / "crl.pem").read_bytes() == before
    assert "is revoked already" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["nobody", "junk", "list", "others list", "others certificate"])
def test_what_cannot_be_revoked_leaves_the_list_as_it_was(
    certs: Path, tmp_path: Path, damage: str
) -> None:
    other = tmp_path / "other"
    create(other, [], "kitchen", 30, force=False)
    crl, name = certs / "crl.pem", "kitchen"
    match damage:
        case "nobody":
            name = "nobody"
        case "junk":
            (certs / "kitchen.crt").write_bytes(b"junk")
        case "list":
            crl.write_bytes(crl.read_bytes()[:-60])
        case "others list":
            crl.write_bytes((other / "crl.pem").read_bytes())
        case _:
            name = str(other / "kitchen.crt")
    before = crl.read_bytes()
    with pytest.raises(CommandFailed):
        revoke(certs, name)
    assert crl.read_bytes() == before
