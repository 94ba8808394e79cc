"""`pubsub retained undo`: on which topic, from its options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.blocks import with_blocks
from cli.net.sources import find_without_topic
from cli.options import BrokerOptions, DataDir

EXAMPLES = """\b
Examples:
  pubsub retained undo home/lamp

A second undo undoes the first.
"""


@with_blocks
def run(
    topic: Annotated[str, typer.Argument(help="One topic.")],
    data_dir: DataDir = Path("data"),
    *,
    broker: BrokerOptions,
    json: Annotated[bool, typer.Option("--json", help="What was done, as JSON.")] = False,
) -> None:
    """Retain again what was retained before; the broker runs."""
    from cli.log.retained import undo

    undo(data_dir, find_without_topic(broker), topic, json=json)
