"""`pubsub subscribers`: what its options mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.main import app


def test_the_options_reach_it(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []
    monkeypatch.setattr(
        "cli.operate.subscribers.ls", lambda *args, **kwargs: calls.append((args, kwargs))
    )
    for arguments in (["subscribers"], ["subscribers", "ls"]):
        app([*arguments, "--data-dir", "d", "--json"], standalone_mode=False)
    assert calls == 2 * [((Path("d"),), {"json": True})]
