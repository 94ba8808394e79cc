"""`pubsub salvage`: which log to save from, and where to, from its options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.options import DataDir

EXAMPLES = """\b
Example:
  pubsub salvage data-saved
"""


def run(
    to: Annotated[
        Path, typer.Argument(metavar="DIR", help="A new data directory for what can be read.")
    ],
    data_dir: DataDir = Path("data"),
    json: Annotated[bool, typer.Option("--json", help="A line of JSON per loss.")] = False,
) -> None:
    """Save what can be read of a damaged log.

    It goes into a new log, and what is lost is said. The damaged files stay as they are.
    """
    from cli.care.salvage import salvage

    salvage(data_dir, to, json=json)
