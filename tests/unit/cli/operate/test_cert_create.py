"""Which files `pubsub cert create` makes, and which it never touches."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from broker.config import Config
from broker.security.tls import context_of, doubts
from cli.operate.cert_create import create, own_names
from cli.terminal.failure import CommandFailed, Exit


@pytest.fixture
def certs(tmp_path: Path) -> Path:
    return tmp_path / "new" / "certs"


def test_what_it_prints_is_a_listener_that_works(
    certs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    create(certs, ["home.lan", "127.0.0.1"], None, 30, force=False)
    said = capsys.readouterr()
    assert "home.lan 127.0.0.1" in said.err
    assert "mosquitto_sub --cafile ca.crt -h home.lan -p 8883" in said.err
    for_clients = "allow_anonymous = true\n" + said.out
    create(certs, [], "kitchen", 30, force=False)
    for_clients += capsys.readouterr().out
    settings = certs / "broker.toml"
    settings.write_text(for_clients)
    (listener,) = Config.load(settings, {}).listeners
    context = context_of(listener)
    assert context is not None
    assert doubts(listener, context) == ""


def test_keys_are_their_owners_alone_whatever_the_umask(certs: Path) -> None:
    umask = os.umask(0)
    try:
        create(certs, ["a"], None, 30, force=False)
        create(certs, [], "kitchen", 30, force=False)
    finally:
        os.umask(umask)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in certs.iterdir()}
    assert modes == {
        **dict.fromkeys(("ca.key", "server.key", "kitchen.key"), 0o600),
        **dict.fromkeys(("ca.crt", "server.crt", "kitchen.crt", "crl.pem"), 0o644),
    }
    assert stat.S_IMODE(certs.stat().st_mode) == 0o700


@pytest.mark.parametrize("user", [None, "kitchen"])
def test_no_key_is_overwritten_without_force_and_the_authoritys_never(
    certs: Path, user: str | None
) -> None:
    create(certs, [], user, 30, force=False)
    before = {path.name: path.read_bytes() for path in certs.iterdir()}
    with pytest.raises(CommandFailed, match=r"is there already; .* --force"):
        create(certs, [], user, 30, force=False)
    assert {path.name: path.read_bytes() for path in certs.iterdir()} == before
    create(certs, [], user, 30, force=True)
    after = {path.name: path.read_bytes() for path in certs.iterdir()}
    stem = user or "server"
    old = {} if user is None else {f"{stem}.old.crt": before[f"{stem}.crt"]}
    changed = {name for name in after if name not in old and after[name] != before[name]}
    assert changed == {f"{stem}.key", f"{stem}.crt"}
    assert {name: after[name] for name in old} == old, "it may have to be revoked"


def test_an_authority_that_cannot_sign_is_left_alone(certs: Path) -> None:
    certs.mkdir(parents=True)
    (certs / "ca.crt").write_text("mine")
    (certs / "ca.key").write_text("mine")
    with pytest.raises(CommandFailed, match=r"cannot sign: .*; choose another --dir"):
        create(certs, ["a"], None, 30, force=True)
    assert {path.name for path in certs.iterdir()} == {"ca.crt", "ca.key"}


@pytest.mark.parametrize("user", ["", "a/b", "..", "ca", "server", "x" * 65, "a+", "#"])
def test_a_user_that_no_file_can_be_called_like_is_refused(certs: Path, user: str) -> None:
    with pytest.raises(CommandFailed, match="cannot be the user of a certificate") as refused:
        create(certs, [], user, 30, force=False)
    assert refused.value.code == Exit.USAGE
    assert not certs.exists()


def test_a_client_has_no_host_names_and_a_host_name_has_no_umlauts(certs: Path) -> None:
    with pytest.raises(CommandFailed, match="has no host names"):
        create(certs, ["a"], "kitchen", 30, force=False)
    with pytest.raises(CommandFailed, match="no certificate can be made"):
        create(certs, ["käse.example"], None, 30, force=False)


def test_a_directory_that_cannot_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CommandFailed, match="file"):
        create(tmp_path / "file" / "certs", ["a"], None, 30, force=False)


def test_its_own_names_are_those_that_others_may_use() -> None:
    names = own_names()
    assert names[0]
    assert {"localhost", "127.0.0.1", "::1"} <= set(names)
    assert len(names) == len(set(names))
