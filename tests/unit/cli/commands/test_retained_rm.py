"""`pubsub retained rm`: on which topics and which broker, from its options."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.main import app
from cli.net.address import Address


def test_the_options_say_what_and_where(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[object] = []
    monkeypatch.setattr("cli.log.retained.remove", lambda *args, **how: done.append((args, how)))
    app(["retained", "rm", "a", "-p", "1884", "--data-dir", "d", "--json"], standalone_mode=False)
    assert done == [((Path("d"), Address(port=1884), ["a"]), {"json": True})]
