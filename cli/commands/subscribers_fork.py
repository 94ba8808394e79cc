"""`pubsub subscribers fork`: makes one like another."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.blocks import with_blocks
from cli.options import AdminOptions, SubscriberId

EXAMPLES = """\b
Example:
  pubsub subscribers fork sub1 sub1-again
"""


@with_blocks
def run(
    name: SubscriberId,
    new: Annotated[str, typer.Argument(metavar="NEW", help="The name of the new one.")],
    *,
    broker: AdminOptions,
    json: Annotated[bool, typer.Option("--json", help="As one line of JSON.")] = False,
) -> None:
    """Make a subscriber with filters and place of another.

    What that one has in flight, the new one is sent, too.
    """
    from cli.operate.subscribers import fork
    from cli.operate.where import find

    fork(find(broker), name, new, json=json)
