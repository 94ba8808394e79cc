"""Help texts, as a person sees them in a terminal of 80 columns."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from cli.main import app

COLUMNS = 80


def commands(command: Any, *words: str) -> Iterator[tuple[str, ...]]:
    yield words
    below = getattr(command, "commands", {})
    for name in below:
        yield from commands(below[name], *words, name)


ALL = [*commands(typer.main.get_command(app))]


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(COLUMNS))


def help_of(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> list[str]:
    app([*words, "--help"], prog_name="pubsub", standalone_mode=False)
    return capsys.readouterr().out.splitlines()


def test_commands_below_others_are_among_them() -> None:
    assert {("log", "trim"), ("subscribers", "rm"), ("broker", "start"), ("pub",)} <= {*ALL}


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_no_line_is_wider_than_the_terminal(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    found = help_of(words, capsys)
    assert found
    assert [line for line in found if len(line) > COLUMNS] == []


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_what_a_command_does_is_said_in_a_whole_sentence_where_it_is_listed(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    listed = [line for line in help_of(words, capsys) if re.match(r"  [a-z-]+ {2,}", line)]
    assert [line for line in listed if line.endswith("...")] == []
