"""What every command's help has: examples that can be typed, in words that a person reads."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from cli.main import app

ROOT = Path(__file__).parents[3]
ROOMS = {
    *("pubsub", "pubsub broker", "pubsub group", "pubsub quota", "pubsub cluster"),
    *("pubsub context", "pubsub user", "pubsub acl", "pubsub cert"),
}
"""First words that are no commands by themselves."""


def below(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    if name not in ROOMS:
        yield name, command
    for word, each in getattr(command, "commands", {}).items():
        yield from below(each, f"{name} {word}")


COMMANDS = dict(below(typer.main.get_command(app), "pubsub"))


def examples(command: Any) -> list[list[str]]:
    """Words of each, without what a shell does with it, or what is said beside it."""
    lines = re.findall(r"^  (?:.* \| )?pubsub (.+)$", command.epilog or "", re.MULTILINE)
    return [shlex.split(re.split(r" {2,}| [|>] ", line)[0]) for line in lines]


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_examples_that_can_be_typed(name: str) -> None:
    found = examples(COMMANDS[name])
    assert found
    for words in found:
        length = next(n for n in (2, 1) if " ".join(("pubsub", *words[:n])) in COMMANDS)
        other = COMMANDS[" ".join(("pubsub", *words[:length]))]
        with other.make_context(name, words[length:]) as context:
            assert not context.args


@pytest.mark.parametrize("name", COMMANDS)
def test_its_help_says_what_a_value_is_in_words(name: str) -> None:
    command = COMMANDS[name]
    with command.make_context(name, [], resilient_parsing=True) as context:
        said = command.get_help(context)
    assert " range>" not in said
    assert max(map(len, said.splitlines())) <= 80


@pytest.mark.parametrize("name", COMMANDS)
def test_the_pages_say_what_it_is_for(name: str) -> None:
    assert f"`{name}" in (ROOT / "docs/commands.md").read_text(encoding="utf-8")
