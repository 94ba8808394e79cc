"""`pubsub log trim`: what is removed, from its options."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from cli.main import app


@pytest.mark.parametrize(
    ("arguments", "called"),
    [
        ("--before @-7d", (Path("data"), "@-7d", [], False, False, False, False)),
        (
            "a/# b --before -5 --dry-run --unread -y --json --data-dir d",
            (Path("d"), "-5", ["a/#", "b"], True, True, True, True),
        ),
    ],
)
def test_the_options_say_what_is_done(
    monkeypatch: pytest.MonkeyPatch, arguments: str, called: tuple[object, ...]
) -> None:
    calls: list[tuple[object, ...]] = []
    monkeypatch.setattr(
        "cli.log.log_trim.trim", lambda *what, **how: calls.append((*what, *how.values()))
    )
    app(["log", "trim", *shlex.split(arguments)], standalone_mode=False)
    assert calls == [called]
