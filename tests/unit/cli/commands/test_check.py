"""`pubsub check`: which log is looked at, from its options."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from cli.main import app


@pytest.mark.parametrize(
    ("arguments", "path", "json"),
    [
        ("", "data/pubsub.db", False),
        ("--data-dir d --json", "d/pubsub.db", True),
        ("copy.db", "copy.db", False),
        ("d", "d/pubsub.db", False),
        ("--data-dir none", "none/pubsub.db", False),
    ],
)
def test_the_log_of_the_data_directory_or_another_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: str, path: str, json: bool
) -> None:
    looked: list[tuple[Path, bool]] = []
    monkeypatch.setattr("cli.care.check.check", lambda path, *, json: looked.append((path, json)))
    monkeypatch.chdir(tmp_path)
    for directory in ("data", "d"):
        (tmp_path / directory).mkdir()
    app(["check", *shlex.split(arguments)], standalone_mode=False)
    assert looked == [(Path(path), json)]
