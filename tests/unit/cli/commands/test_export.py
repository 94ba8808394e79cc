"""`pubsub export`: which messages, and to which file, from its options."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.log.history import Options
from cli.main import app
from cli.terminal.failure import CommandFailed


def test_the_last_argument_is_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[object] = []
    monkeypatch.setattr("cli.log.export.export", lambda *args, **how: done.append((args, how)))
    app(
        [
            "export",
            "a/#",
            "b",
            "x.csv",
            "--from",
            "3",
            "--until",
            "9",
            "--publisher",
            "p",
            "--json",
        ],
        standalone_mode=False,
    )
    options = Options(
        data_dir=Path("data"),
        filters=("a/#", "b"),
        last=None,
        start="3",
        until="9",
        publisher="p",
    )
    assert done == [((options, Path("x.csv"), "csv"), {"as_json": True})]
    with pytest.raises(CommandFailed, match="which format"):
        app(["export", "home/#"], standalone_mode=False)
