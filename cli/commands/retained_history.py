"""`pubsub retained history`: what was retained on a topic before, from its options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.options import DataDir

EXAMPLES = """\b
Examples:
  pubsub retained history home/lamp
  pubsub retained history 'home/#' -n 5 --json
"""


def run(
    filters: Annotated[list[str], typer.Argument(help="Topics, or Topic Filters.")],
    data_dir: DataDir = Path("data"),
    last: Annotated[
        int, typer.Option("-n", metavar="N", min=0, help="The last so many, 0 for all.")
    ] = 20,
    json: Annotated[bool, typer.Option("--json", help="A line of JSON per message.")] = False,
) -> None:
    """What was retained before; an empty payload removed it."""
    from cli.log.history import Options
    from cli.log.show_log import show

    show(
        Options(
            data_dir=data_dir,
            filters=tuple(filters),
            last=last or None,
            retained=True,
            json=json,
        )
    )
