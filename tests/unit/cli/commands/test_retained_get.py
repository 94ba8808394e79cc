"""`pubsub retained get`: of which topic, and how, from its options."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.message import Message, Offset
from cli.main import app


def test_it_is_the_message_at_its_offset(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[object] = []
    message = Message("a", b"x", 1, True, "p", 1, offset=Offset(7))
    monkeypatch.setattr("cli.log.retained.of_topic", lambda *_: message)
    monkeypatch.setattr("cli.log.one_message.show", lambda *args, **how: shown.append((args, how)))
    app(["retained", "get", "a", "--raw"], standalone_mode=False)
    assert shown == [((Path("data"), [7]), {"json": False, "raw": True})]
