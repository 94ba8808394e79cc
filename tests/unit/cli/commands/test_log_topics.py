"""`pubsub log topics`: which topics, and in which order, from its options."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.main import app


def test_the_options_say_which_and_how(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[object] = []
    monkeypatch.setattr("cli.log.show_topics.show", lambda *args, **how: shown.append((args, how)))
    app(["log", "topics", "a/#", "--sort", "bytes", "--json"], standalone_mode=False)
    app(["log", "topics", "--data-dir", "d"], standalone_mode=False)
    assert shown == [
        ((Path("data"), ("a/#",)), {"sort": "bytes", "json": True}),
        ((Path("d"), ()), {"sort": "topic", "json": False}),
    ]
