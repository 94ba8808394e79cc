"""`pubsub subscribers show`: all that is known of one."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.blocks import with_blocks
from cli.options import AdminOptions, SubscriberId

EXAMPLES = """\b
Examples:
  pubsub subscribers show sub1
  pubsub subscribers show sub1 --json
"""


@with_blocks
def run(
    name: SubscriberId,
    *,
    broker: AdminOptions,
    json: Annotated[bool, typer.Option("--json", help="As one line of JSON.")] = False,
) -> None:
    """One subscriber: its filters, its place, what is in flight."""
    from cli.operate.subscribers import show
    from cli.operate.where import find

    show(find(broker), name, json=json)
