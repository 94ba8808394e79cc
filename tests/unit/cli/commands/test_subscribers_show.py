"""`pubsub subscribers show`: what its options mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.main import app


def test_the_options_reach_it(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []
    monkeypatch.setattr(
        "cli.operate.subscribers.show", lambda *args, **kwargs: calls.append((args, kwargs))
    )
    app(["subscribers", "show", "sub1", "--data-dir", "d"], standalone_mode=False)
    assert calls == [((Path("d"), "sub1"), {"json": False})]
