"""`pubsub subscribers rm`: what its options mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.main import app


def test_the_options_reach_it(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []
    monkeypatch.setattr(
        "cli.operate.subscribers.rm", lambda *args, **kwargs: calls.append((args, kwargs))
    )
    app(["subscribers", "rm", r"\$share/w/t", "--data-dir", "d"], standalone_mode=False)
    assert calls == [((Path("d"), r"\$share/w/t"), {"json": False})]
