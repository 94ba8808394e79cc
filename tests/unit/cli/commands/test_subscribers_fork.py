"""`pubsub subscribers fork`: what its options mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.main import app


def test_the_options_reach_it(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []
    monkeypatch.setattr(
        "cli.operate.subscribers.fork", lambda *args, **kwargs: calls.append((args, kwargs))
    )
    app(["subscribers", "fork", "a", "b", "--json", "--data-dir", "d"], standalone_mode=False)
    assert calls == [((Path("d"), "a", "b"), {"json": True})]
