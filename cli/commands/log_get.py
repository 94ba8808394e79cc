"""`pubsub log get`: one message with all that is known of it, from its options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.options import OFFSET_MAX, DataDir

EXAMPLES = """\b
Examples:
  pubsub log get 1
  pubsub log get 1 2 --json
  pubsub log get 1 --raw
"""


def run(
    offsets: Annotated[
        list[int],
        typer.Argument(metavar="N", min=1, max=OFFSET_MAX, help="Where they are in the log."),
    ],
    data_dir: DataDir = Path("data"),
    json: Annotated[bool, typer.Option("--json", help="A line of JSON per message.")] = False,
    raw: Annotated[bool, typer.Option("--raw", help="The bytes of the payload only.")] = False,
) -> None:
    """Messages by their offsets, with all properties."""
    from cli.log.one_message import show

    if json and raw:
        raise typer.BadParameter("use one of --json and --raw")
    show(data_dir, offsets, json=json, raw=raw)
