from __future__ import annotations

from pathlib import Path

import pytest

from cli.main import app


def test_it_says_that_clients_are_not_to_come_back(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[Path, float, str]] = []
    monkeypatch.setattr("cli.operate.stopping.stop", lambda *asks: asked.append(asks))
    app(["broker", "retire", "--data-dir", "d"], standalone_mode=False)
    assert asked == [(Path("d"), 30, "/drain?for_good=true")]
    assert "d/ may be removed" in capsys.readouterr().err
