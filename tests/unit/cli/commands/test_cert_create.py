"""`pubsub cert create`: which certificate is made, from its options."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from cli.main import app


@pytest.mark.parametrize(
    ("arguments", "called"),
    [
        ("", (Path("certs"), [], None, 820, False)),
        (
            "a.lan 10.0.0.1 --dir d --days 9 --force",
            (Path("d"), ["a.lan", "10.0.0.1"], None, 9, True),
        ),
        ("--client kitchen", (Path("certs"), [], "kitchen", 820, False)),
    ],
)
def test_the_options_say_what_is_made(
    monkeypatch: pytest.MonkeyPatch, arguments: str, called: tuple[object, ...]
) -> None:
    calls: list[tuple[object, ...]] = []
    monkeypatch.setattr(
        "cli.operate.cert_create.create", lambda *what, **how: calls.append((*what, *how.values()))
    )
    app(["cert", "create", *shlex.split(arguments)], standalone_mode=False)
    assert calls == [called]
