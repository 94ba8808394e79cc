"""`pubsub retained rm`: from which topics, from its options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.blocks import with_blocks
from cli.net.sources import find_without_topic
from cli.options import BrokerOptions, DataDir

EXAMPLES = """\b
Examples:
  pubsub retained rm home/lamp
  pubsub retained ls 'home/#' -F %t | xargs -d '\\n' pubsub retained rm
"""


@with_blocks
def run(
    topics: Annotated[list[str], typer.Argument(help="Topics.")],
    data_dir: DataDir = Path("data"),
    *,
    broker: BrokerOptions,
    json: Annotated[bool, typer.Option("--json", help="What was done, as JSON.")] = False,
) -> None:
    """Retain nothing on these topics any more; the broker runs."""
    from cli.log.retained import remove

    remove(data_dir, find_without_topic(broker), topics, json=json)
