"""`pubsub subscribers show`: all that is known of one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.options import DataDir, SubscriberId

EXAMPLES = """\b
Examples:
  pubsub subscribers show sub1
  pubsub subscribers show sub1 --json
"""


def run(
    name: SubscriberId,
    data_dir: DataDir = Path("data"),
    json: Annotated[bool, typer.Option("--json", help="As one line of JSON.")] = False,
) -> None:
    """One subscriber: its filters, its place, what is in flight."""
    from cli.subscribers import show

    show(data_dir, name, json=json)
