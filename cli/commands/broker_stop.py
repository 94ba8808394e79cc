"""`pubsub broker stop`: asks the broker to stop, and waits until its data directory is free."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.options import DataDir, finite

EXAMPLES = """\b
Examples:
  pubsub broker stop
  pubsub broker stop --drain
"""
Timeout = Annotated[
    float, typer.Option(min=0, callback=finite, help="Seconds to wait for its end.")
]


def run(
    data_dir: DataDir = Path("data"),
    timeout: Timeout = 30.0,
    drain: Annotated[
        bool,
        typer.Option("--drain", help="Let clients go on at other brokers that share its log."),
    ] = False,
) -> None:
    """Stop the broker on a data directory, and wait until it has."""
    from cli.stopping import stop

    stop(data_dir, timeout, "/drain" if drain else "/stop")
