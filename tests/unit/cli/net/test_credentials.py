"""Passwords: where they come from, and who gets to see them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cli.net.credentials import from_file, from_stdin, hide_argument
from cli.terminal.failure import CommandFailed, Exit


def private(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    path.chmod(0o600)
    return path


def test_the_first_line_of_a_file_is_the_password(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert from_file(private(tmp_path / "a", " gehéim \r\nother\n".encode())) == " gehéim "
    assert from_file(private(tmp_path / "b", b"x")) == "x"
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "has no password in its first line"), (b"\nx", "has no"), (b"\xff", "is not UTF-8")],
)
def test_a_file_without_a_password_is_a_usage_error(
    tmp_path: Path, content: bytes, said: str
) -> None:
    with pytest.raises(CommandFailed, match=said) as failed:
        from_file(private(tmp_path / "a", content))
    assert failed.value.code is Exit.USAGE
    with pytest.raises(CommandFailed, match="none: No such file"):
        from_file(tmp_path / "none")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_file_that_others_may_use_is_told(
    tmp_path: Path, mode: int, capfd: pytest.CaptureFixture[str]
) -> None:
    path = private(tmp_path / "a", b"x\n")
    path.chmod(mode)
    assert from_file(path) == "x"
    said = f"{path}: others than its owner may use it; better: chmod 600 {path}\n"
    assert capfd.readouterr().err == said


def test_only_the_first_line_of_standard_input_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"secret\nmessage\n")
    os.close(writing)
    with open(reading, "rb", buffering=0) as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        assert from_stdin() == "secret"
        assert stdin.read() == b"message\n"
        with pytest.raises(CommandFailed, match="standard input has no password"):
            from_stdin()


def test_a_terminal_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("getpass.getpass", lambda prompt: f"typed at {prompt}")
    assert from_stdin() == "typed at password: "


@pytest.mark.skipif(sys.platform != "linux", reason="arguments cannot be changed elsewhere")
@pytest.mark.parametrize("arguments", [["-P", "secret"], ["-Psecret"], ["--password=secret"]])
def test_a_password_in_the_arguments_is_overwritten(arguments: list[str]) -> None:
    script = (
        "from cli.net.credentials import hide_argument; hide_argument('secret');"
        "import sys; sys.stdout.buffer.write(open('/proc/self/cmdline', 'rb').read())"
    )
    shown = subprocess.run(
        [sys.executable, "-c", script, "-u", "ann", *arguments, "topic"],
        stdout=subprocess.PIPE,
        timeout=30,
        check=True,
    ).stdout
    assert b"secret" not in shown.partition(b"\0-u\0")[2]
    assert shown.endswith(b"xxxxxx\0topic\0")
    assert b"\0-u\0ann\0" in shown


def test_a_person_is_told_of_the_better_way(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr("cli.terminal.output.hint", said.append)
    hide_argument("no argument of this process ends so")
    assert "better --password-file or --password-stdin" in said[0]
