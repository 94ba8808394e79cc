"""`pubsub broker status`: a summary on a terminal, else all figures, in columns or as JSON."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.main import app

STATUS: dict[str, object] = {"version": "1\x1b[2J", "clients": {"connected": 2}, "sqlite": "3.45"}


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, Path]]:
    asked: list[tuple[str, str, Path]] = []

    def request(method: str, path: str, data_dir: Path) -> dict[str, object]:
        asked.append((method, path, data_dir))
        return STATUS

    monkeypatch.setattr("cli.operate.admin.request", request)
    return asked


@pytest.mark.parametrize(("terminal", "options"), [(False, []), (True, ["--all"])])
def test_a_pipe_and_who_asks_for_all_get_a_line_for_each_figure(
    asked: list[tuple[str, str, Path]],
    capsysbinary: pytest.CaptureFixture[bytes],
    monkeypatch: pytest.MonkeyPatch,
    terminal: bool,
    options: list[str],
) -> None:
    monkeypatch.setattr("cli.terminal.output.to_terminal", lambda: terminal)
    app(["broker", "status", "--data-dir", "d", *options], standalone_mode=False)
    assert asked == [("GET", "/status", Path("d"))]
    assert capsysbinary.readouterr().out.decode().splitlines() == [
        r"version            1\x1b[2J",
        "clients.connected  2",
        "sqlite             3.45",
    ]


def test_a_terminal_gets_a_summary(
    capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cli.terminal.output.to_terminal", lambda: True)
    app(["broker", "status"], standalone_mode=False)
    assert capsysbinary.readouterr().out.decode().startswith(r"pubsub 1\x1b[2J on ")


def test_programs_get_one_line_of_json(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    app(["broker", "status", "--json"], standalone_mode=False)
    assert capsysbinary.readouterr().out == (
        b'{"version": "1\\u001b[2J", "clients": {"connected": 2}, "sqlite": "3.45"}\n'
    )
