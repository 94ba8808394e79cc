"""`pubsub subscribers rm`: ends one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.options import DataDir, SubscriberId

EXAMPLES = """\b
Example:
  pubsub subscribers rm sub1
"""


def run(
    name: SubscriberId,
    data_dir: DataDir = Path("data"),
    json: Annotated[bool, typer.Option("--json", help="As one line of JSON.")] = False,
) -> None:
    """End a subscriber: its session, its place, its connection.

    A group ends when nobody is subscribed to it any more.
    """
    from cli.subscribers import rm

    rm(data_dir, name, json=json)
