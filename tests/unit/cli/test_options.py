"""Options of several commands: the letters of mosquitto_pub and mosquitto_sub mean the same."""

from __future__ import annotations

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
