"""`pubsub log topics`: which topics, and in which order, from its options."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cli.options import DataDir

EXAMPLES = """\b
Examples:
  pubsub log topics
  pubsub log topics 'home/#' --sort bytes
  pubsub log topics --json
"""


class Order(StrEnum):
    TOPIC = "topic"
    MESSAGES = "messages"
    BYTES = "bytes"
    LAST = "last"


def run(
    filters: Annotated[list[str] | None, typer.Argument(help="Topic filters; all topics.")] = None,
    data_dir: DataDir = Path("data"),
    sort: Annotated[
        Order, typer.Option("--sort", help="By which column; the largest last.")
    ] = Order.TOPIC,
    json: Annotated[bool, typer.Option("--json", help="A line of JSON per topic.")] = False,
) -> None:
    """The topics of the log: messages, bytes, first and last."""
    from cli.log.show_topics import show

    show(data_dir, tuple(filters or ()), sort=sort.value, json=json)
