"""`pubsub subscribers rm`: ends one."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.blocks import with_blocks
from cli.options import AdminOptions, SubscriberId

EXAMPLES = """\b
Example:
  pubsub subscribers rm sub1
"""


@with_blocks
def run(
    name: SubscriberId,
    *,
    broker: AdminOptions,
    json: Annotated[bool, typer.Option("--json", help="As one line of JSON.")] = False,
) -> None:
    """End a subscriber: its session, its place, its connection.

    A group ends when nobody is subscribed to it any more.
    """
    from cli.operate.subscribers import rm
    from cli.operate.where import find

    rm(find(broker), name, json=json)
