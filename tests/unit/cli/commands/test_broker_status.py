"""`pubsub broker status`: the same figures for people, in columns, and for programs."""

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

    monkeypatch.setattr("cli.admin.request", request)
    return asked


def test_people_get_a_line_for_each_figure(
    asked: list[tuple[str, str, Path]], capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    app(["broker", "status", "--data-dir", "d"], standalone_mode=False)
    assert asked == [("GET", "/status", Path("d"))]
    assert capsysbinary.readouterr().out.decode().splitlines() == [
        r"version            1\x1b[2J",
        "clients.connected  2",
        "sqlite             3.45",
    ]


def test_programs_get_one_line_of_json(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    app(["broker", "status", "--json"], standalone_mode=False)
    assert capsysbinary.readouterr().out == (
        b'{"version": "1\\u001b[2J", "clients": {"connected": 2}, "sqlite": "3.45"}\n'
    )
