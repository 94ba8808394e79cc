"""`pubsub subscribers seek`: what its options mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.main import app


def test_the_options_reach_it(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []
    monkeypatch.setattr(
        "cli.operate.subscribers.seek", lambda *args, **kwargs: calls.append((args, kwargs))
    )
    arguments = ["subscribers", "seek", "sub1", "--to", "-2", "--dry-run", "--data-dir", "d"]
    app(arguments, standalone_mode=False)
    assert calls == [((Path("d"), "sub1", "-2"), {"dry_run": True, "json": False})]
