"""A block of options: one dataclass, and the options of each command that takes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from cli.blocks import with_blocks


@dataclass(frozen=True)
class Block:
    count: Annotated[int, typer.Option("--count", "-c", help="How many.")] = 3
    name: Annotated[str | None, typer.Option(help="Whose.")] = None


def test_a_command_has_the_options_of_its_blocks_and_gets_them_as_one() -> None:
    got: list[object] = []
    app = typer.Typer(add_completion=False)

    @app.command()
    @with_blocks
    def run(topic: str, *, block: Block, last: bool = False) -> None:
        """What it does."""
        got.extend([topic, block, last])

    app(["t", "-c", "4", "--last"], standalone_mode=False)
    assert got == ["t", Block(4), True]
    command = typer.main.get_command(app)
    assert [parameter.name for parameter in command.params] == ["topic", "count", "name", "last"]
    assert command.help == "What it does."
