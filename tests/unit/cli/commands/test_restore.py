"""`pubsub restore`: which backup goes where, from its options."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from cli.main import app


@pytest.mark.parametrize(
    ("arguments", "called"),
    [
        ("a.db", (Path("a.db"), Path("data"), False, False)),
        ("a.db --data-dir d --replace", (Path("a.db"), Path("d"), True, False)),
        ("a.db --json", (Path("a.db"), Path("data"), False, True)),
    ],
)
def test_the_options_say_what_is_done(
    monkeypatch: pytest.MonkeyPatch, arguments: str, called: tuple[object, ...]
) -> None:
    calls: list[tuple[object, ...]] = []
    monkeypatch.setattr(
        "cli.care.restore.restore", lambda *paths, **how: calls.append((*paths, *how.values()))
    )
    app(["restore", *shlex.split(arguments)], standalone_mode=False)
    assert calls == [called]
