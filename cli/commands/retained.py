"""`pubsub retained`, or `pubsub retained ls`: which topics, and how, from its options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.options import DataDir

EXAMPLES = """\b
Examples:
  pubsub retained
  pubsub retained ls 'home/#' --json
  pubsub retained -F '%t %p'

The words ls, get, rm, history and undo are Topic Filters only behind ls: pubsub retained ls get
"""


def run(
    filters: Annotated[list[str] | None, typer.Argument(help="Topic filters; all topics.")] = None,
    data_dir: DataDir = Path("data"),
    json: Annotated[bool, typer.Option("--json", help="A line of JSON per message.")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="Comma-separated, with a heading.")] = False,
    format: Annotated[
        str | None, typer.Option("--format", "-F", help="How to write a message.")
    ] = None,
) -> None:
    """What is retained, whether or not the broker runs."""
    from cli.log.history import Options
    from cli.log.retained import show

    if json + csv + (format is not None) > 1:
        raise typer.BadParameter("use one of --json, --csv and -F")
    show(
        Options(
            data_dir=data_dir,
            filters=tuple(filters or ()),
            last=None,
            json=json,
            csv=csv,
            format=format,
        )
    )
