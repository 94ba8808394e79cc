"""`pubsub salvage`: from where to where, from its options."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.main import app


def test_the_options_say_from_where_to_where(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[tuple[Path, Path, bool]] = []
    monkeypatch.setattr(
        "cli.care.salvage.salvage", lambda data_dir, to, *, json: done.append((data_dir, to, json))
    )
    app(["salvage", "new"], standalone_mode=False)
    app(["salvage", "new", "--data-dir", "d", "--json"], standalone_mode=False)
    assert done == [(Path("data"), Path("new"), False), (Path("d"), Path("new"), True)]
