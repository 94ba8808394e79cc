"""`pubsub retained get`: the retained message of one topic, from its options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.options import DataDir

EXAMPLES = """\b
Examples:
  pubsub retained get home/lamp
  pubsub retained get home/lamp --raw
"""


def run(
    topic: Annotated[str, typer.Argument(help="One topic.")],
    data_dir: DataDir = Path("data"),
    json: Annotated[bool, typer.Option("--json", help="A line of JSON.")] = False,
    raw: Annotated[bool, typer.Option("--raw", help="The bytes of the payload only.")] = False,
) -> None:
    """The retained message of a topic, with all properties.

    There is none: exit code 66.
    """
    from cli.log.one_message import show
    from cli.log.retained import of_topic

    if json and raw:
        raise typer.BadParameter("use one of --json and --raw")
    show(data_dir, [of_topic(data_dir, topic).offset], json=json, raw=raw)
