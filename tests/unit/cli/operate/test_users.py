"""`pubsub user` where no broker runs."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cli.net import credentials
from cli.operate import users
from cli.terminal.failure import CommandFailed, Exit
from tests.support.passwords import ARGON2ID, SHA512

OUTPUT = pytest.CaptureFixture[str]


@pytest.fixture
def password(tmp_path: Path) -> Path:
    path = tmp_path / "password"
    path.write_text("secret\n")
    path.chmod(0o600)
    return path


def add(data_dir: Path, name: str, password: Path | None, **more: Any) -> None:
    options: dict[str, Any] = {"roles": ["standard"], "scram": False, "json": False}
    users.add(data_dir, name, password_file=password, password_stdin=False, **options | more)


def listed(data_dir: Path, capsys: OUTPUT) -> list[dict[str, Any]]:
    capsys.readouterr()
    users.ls(data_dir, json=True)
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_the_first_user_is_made_before_the_first_start_and_that_is_said(
    tmp_path: Path, password: Path, capsys: OUTPUT
) -> None:
    data_dir = tmp_path / "new"
    add(data_dir, "anna", password, roles=["admin"])
    told = capsys.readouterr()
    assert told.out == "user anna is added, with the role admin\n"
    assert "until now everybody could connect" in told.err
    assert "--allow-anonymous" in told.err
    add(data_dir, "bob", password)
    assert capsys.readouterr().err == ""
    anna, bob = listed(data_dir, capsys)
    assert (anna["name"], anna["roles"], anna["kept_as"]) == ("anna", ["admin"], "argon2id")
    assert bob["roles"] == ["standard"]
    assert data_dir.stat().st_mode & 0o777 == 0o700


def test_nothing_of_the_password_is_in_the_database(tmp_path: Path, password: Path) -> None:
    password.write_text("sesame-open-4711\n")
    add(tmp_path / "new", "anna", password)
    for path in (tmp_path / "new").iterdir():
        assert b"sesame" not in path.read_bytes()


def test_what_cannot_be_has_its_exit_code(tmp_path: Path, password: Path) -> None:
    add(tmp_path, "anna", password)
    calls: list[tuple[Callable[[], None], Exit]] = [
        (lambda: add(tmp_path, "anna", password), Exit.FAILED),
        (lambda: add(tmp_path, "a:b", password), Exit.USAGE),
        (lambda: add(tmp_path, "bob", password, roles=["a b"]), Exit.USAGE),
        (lambda: add(tmp_path, "bob", tmp_path / "none"), Exit.USAGE),
        (lambda: users.rm(tmp_path, "zoe"), Exit.NOTHING_THERE),
        (lambda: users.set_roles(tmp_path, "zoe", ["night"]), Exit.NOTHING_THERE),
        (lambda: users.set_roles(tmp_path, "anna", ["a b"]), Exit.USAGE),
        (lambda: change(tmp_path, "zoe", password), Exit.NOTHING_THERE),
        (lambda: users.take(tmp_path, tmp_path / "none"), Exit.USAGE),
    ]
    for call, code in calls:
        with pytest.raises(CommandFailed) as failed:
            call()
        assert failed.value.code == code


def change(data_dir: Path, name: str, password: Path) -> None:
    users.set_password(data_dir, name, scram=None, password_file=password, password_stdin=False)


def test_a_password_is_asked_for_twice_and_never_without_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: OUTPUT
) -> None:
    with pytest.raises(CommandFailed, match="no terminal") as failed:
        add(tmp_path, "anna", None)
    assert failed.value.code == Exit.USAGE

    class AskedFor(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stdin", AskedFor())
    typed = iter(["", "secret", "sceret", "secret", "secret"])
    asked: list[str] = []

    def type_one(prompt: str) -> str:
        asked.append(prompt)
        return next(typed)

    monkeypatch.setattr(credentials, "from_stdin", type_one)
    add(tmp_path, "anna", None)
    assert asked == ["password of anna: "] * 2 + ["again: ", "password of anna: ", "again: "]
    assert "not the same" in capsys.readouterr().err


def test_a_password_is_changed_and_a_user_removed(
    tmp_path: Path, password: Path, capsys: OUTPUT
) -> None:
    add(tmp_path, "anna", password)
    [before] = listed(tmp_path, capsys)
    change(tmp_path, "anna", password)
    [after] = listed(tmp_path, capsys)
    assert after["changed_at_us"] > before["changed_at_us"]
    users.rm(tmp_path, "anna")
    assert listed(tmp_path, capsys) == []


def test_roles_are_changed(tmp_path: Path, password: Path, capsys: OUTPUT) -> None:
    add(tmp_path, "anna", password)
    for roles, told in (
        (["night", "day", "night"], "the roles night, day"),
        (["night"], "the role night"),
        ([], "no role"),
    ):
        capsys.readouterr()
        users.set_roles(tmp_path, "anna", roles)
        assert capsys.readouterr().out == f"user anna has {told} from now on\n"
        [anna] = listed(tmp_path, capsys)
        assert anna["roles"] == [*dict.fromkeys(roles)]


def test_the_users_of_mosquitto_come_with_their_passwords(tmp_path: Path, capsys: OUTPUT) -> None:
    file = tmp_path / "passwd"
    file.write_text(f"anna:{ARGON2ID}\nbob:{SHA512}\ncia:plain\n")
    with pytest.raises(CommandFailed, match="1 line could not be used"):
        users.take(tmp_path, file)
    told = capsys.readouterr()
    assert told.out == "2 users are added, with the role standard\n"
    assert "passwd:3: cia: it is none of" in told.err
    assert "plain" not in told.err
    assert [one["kept_as"] for one in listed(tmp_path, capsys)] == ["argon2id", "6"]
    file.write_text(f"anna:{SHA512}\n")
    users.take(tmp_path, file)
    assert "anna is there already" in capsys.readouterr().err


def test_a_pipe_gets_lines_with_tabs(tmp_path: Path, password: Path, capsys: OUTPUT) -> None:
    add(tmp_path, "anna", password)
    capsys.readouterr()
    users.ls(tmp_path, json=False)
    assert capsys.readouterr().out.split("\t")[:5] == ["anna", "standard", "argon2id", "no", "0"]
