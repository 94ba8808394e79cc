"""`pubsub backup`: which log is copied, and where to, from its options."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from cli.main import app


@pytest.mark.parametrize(
    ("arguments", "called"),
    [
        ("a.db", (Path("data"), Path("a.db"), False)),
        ("a.db --data-dir d --json", (Path("d"), Path("a.db"), True)),
    ],
)
def test_the_options_say_what_is_done(
    monkeypatch: pytest.MonkeyPatch, arguments: str, called: tuple[object, ...]
) -> None:
    calls: list[tuple[object, ...]] = []
    monkeypatch.setattr(
        "cli.care.backup.backup", lambda *paths, **how: calls.append((*paths, *how.values()))
    )
    app(["backup", *shlex.split(arguments)], standalone_mode=False)
    assert calls == [called]
