"""`pubsub compact`: which log is rewritten, from its options."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from cli.main import app


@pytest.mark.parametrize(
    ("arguments", "called"),
    [
        ("", (Path("data"), False)),
        ("--data-dir d --json", (Path("d"), True)),
    ],
)
def test_the_options_say_what_is_done(
    monkeypatch: pytest.MonkeyPatch, arguments: str, called: tuple[object, ...]
) -> None:
    calls: list[tuple[object, ...]] = []
    monkeypatch.setattr(
        "cli.care.compact.compact", lambda *paths, **how: calls.append((*paths, *how.values()))
    )
    app(["compact", *shlex.split(arguments)], standalone_mode=False)
    assert calls == [called]
