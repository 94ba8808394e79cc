"""`pubsub subscribers fork`: makes one like another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.options import DataDir, SubscriberId

EXAMPLES = """\b
Example:
  pubsub subscribers fork sub1 sub1-again
"""


def run(
    name: SubscriberId,
    new: Annotated[str, typer.Argument(metavar="NEW", help="The name of the new one.")],
    data_dir: DataDir = Path("data"),
    json: Annotated[bool, typer.Option("--json", help="As one line of JSON.")] = False,
) -> None:
    """Make a subscriber with filters and place of another.

    What that one has in flight, the new one is sent, too.
    """
    from cli.subscribers import fork

    fork(data_dir, name, new, json=json)
