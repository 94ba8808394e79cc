"""`pubsub subscribers`: who is subscribed, and how far each is behind."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.blocks import with_blocks
from cli.options import AdminOptions

EXAMPLES = """\b
Examples:
  pubsub subscribers
  pubsub subscribers show sub1
  pubsub subscribers seek sub1 --to @-1h --dry-run
  pubsub subscribers fork sub1 sub1-again
  pubsub subscribers rm sub1
"""


@with_blocks
def run(
    *,
    broker: AdminOptions,
    json: Annotated[
        bool, typer.Option("--json", help="A line of JSON for each subscriber.")
    ] = False,
) -> None:
    """Who is subscribed, and how far behind each is.

    LAG are the messages that it has not acknowledged, BEHIND is how old the oldest of them is.
    """
    from cli.operate.subscribers import ls
    from cli.operate.where import find

    ls(find(broker), json=json)
