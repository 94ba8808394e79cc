"""Options of several commands: the letters of mosquitto_pub and mosquitto_sub mean the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import typer

from cli.main import app
from cli.options import unique

MOSQUITTO = {
    "host": "-h",
    "port": "-p",
    "client_id": "-i",
    "username": "-u",
    "password": "-P",
    "keep_alive": "-k",
    "qos": "-q",
}


def every_parameter() -> Iterator[tuple[Any, Any]]:
    """Of every command, with it."""
    waiting: list[Any] = [typer.main.get_command(app)]
    while waiting:
        command = waiting.pop()
        waiting += getattr(command, "commands", {}).values()
        yield from ((command, parameter) for parameter in command.params)


@pytest.mark.parametrize("command", ["pub", "sub", "bench"])
def test_the_letters_are_mosquittos(command: str) -> None:
    group = typer.main.get_command(app)
    parameters = group.commands[command].params  # type: ignore[attr-defined]  # a group's
    letters = {p.name: p.opts[-1] for p in parameters if p.name in MOSQUITTO}
    wanted = dict(MOSQUITTO)
    if command == "bench":
        del wanted["keep_alive"]
    assert letters == wanted


def test_names_that_nobody_gave_differ() -> None:
    assert len({unique() for _ in range(1000)}) == 1000


@pytest.mark.parametrize("text", ["nan", "inf", "1e10", "-inf"])
def test_a_number_that_is_none_is_wrong_usage_of_every_command(text: str) -> None:
    """Else it is what a command waits for, in vain or for ever."""
    fractions = [(c, p) for c, p in every_parameter() if p.type.name.startswith("float")]
    assert len(fractions) >= 7
    for command, parameter in fractions:
        with pytest.raises(typer.BadParameter):
            parameter.process_value(command.make_context("x", [], resilient_parsing=True), text)


def test_an_offset_beyond_all_is_wrong_usage_of_every_command() -> None:
    offsets = [(c, p) for c, p in every_parameter() if p.name in ("offset", "offsets")]
    assert len(offsets) >= 4
    for command, parameter in offsets:
        beyond = [str(1 << 63)] if parameter.nargs == -1 else str(1 << 63)
        with pytest.raises(typer.BadParameter):
            parameter.process_value(command.make_context("x", [], resilient_parsing=True), beyond)
