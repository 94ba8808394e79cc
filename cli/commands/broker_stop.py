"""`pubsub broker stop`: asks the broker to stop, and waits until its data directory is free."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from cli import output
from cli.failure import CommandFailed
from cli.options import DataDir

EXAMPLES = """\b
Example:
  pubsub broker stop
"""
POLL_S = 0.05


def run(
    data_dir: DataDir = Path("data"),
    timeout: Annotated[float, typer.Option(min=0, help="Seconds to wait for its end.")] = 30.0,
) -> None:
    """Stop the broker on a data directory, and wait until it has."""
    from cli.admin import is_running, request

    request("POST", "/stop", data_dir)
    deadline = time.monotonic() + timeout
    with output.waiting("waiting for the broker to end"):
        while is_running(data_dir):
            if time.monotonic() > deadline:
                raise CommandFailed(
                    f"the broker on {data_dir}/ has not stopped within {timeout:g} s",
                    "it finishes what it has acknowledged; look again with: pubsub broker status",
                )
            time.sleep(POLL_S)
    output.note("stopped")
