"""`pubsub broker stop`: asks the broker to stop, and waits until its data directory is free."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.blocks import with_blocks
from cli.options import AdminOptions, finite

EXAMPLES = """\b
Examples:
  pubsub broker stop
  pubsub broker stop --drain
"""
Timeout = Annotated[
    float, typer.Option(metavar="S", min=0, callback=finite, help="Seconds to wait for its end.")
]


@with_blocks
def run(
    *,
    broker: AdminOptions,
    timeout: Timeout = 30.0,
    drain: Annotated[
        bool,
        typer.Option("--drain", help="Let clients go on at other brokers that share its log."),
    ] = False,
) -> None:
    """Stop the broker, and wait until it has.

    One elsewhere is only asked to.
    """
    from cli.operate.stopping import stop
    from cli.operate.where import find

    stop(find(broker), timeout, "/drain" if drain else "/stop")
