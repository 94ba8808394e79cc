"""`pubsub log get`: which messages, and how, from its options."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from cli.main import app


def test_the_options_say_which_and_how(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[object] = []
    monkeypatch.setattr(
        "cli.log.one_message.show", lambda *args, **kwargs: shown.append((args, kwargs))
    )
    app(["log", "get", "1", "7", "--data-dir", "d", "--json"], standalone_mode=False)
    assert shown == [((Path("d"), [1, 7]), {"json": True, "raw": False})]
    with pytest.raises(typer.BadParameter):
        app(["log", "get", "1", "--json", "--raw"], standalone_mode=False)
