from __future__ import annotations

from pathlib import Path

import pytest

from cli.main import app


@pytest.mark.parametrize(("options", "path"), [((), "/stop"), (("--drain",), "/drain")])
def test_it_says_whether_clients_are_to_go_on_elsewhere(
    options: tuple[str, ...], path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Path, float, str]] = []
    monkeypatch.setattr("cli.operate.stopping.stop", lambda *asks: asked.append(asks))
    app(["broker", "stop", "--timeout", "3", *options], standalone_mode=False)
    assert asked == [(Path("data"), 3, path)]
