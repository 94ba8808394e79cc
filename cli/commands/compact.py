"""`pubsub compact`: which log to rewrite, from its options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.options import DataDir

EXAMPLES = """\b
Example:
  pubsub compact
"""


def run(
    data_dir: DataDir = Path("data"),
    json: Annotated[bool, typer.Option("--json", help="As one line of JSON.")] = False,
) -> None:
    """Give the space of removed messages back.

    The broker has to be stopped. Needs as much free space as the log has used pages.
    """
    from cli.care.compact import compact

    compact(data_dir, json=json)
