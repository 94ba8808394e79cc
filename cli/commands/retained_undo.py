"""`pubsub retained undo`: on which topic, from its options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.address import find
from cli.options import DataDir, Host, Password, Port, Username

EXAMPLES = """\b
Examples:
  pubsub retained undo home/lamp

A second undo undoes the first.
"""


def run(
    topic: Annotated[str, typer.Argument(help="One topic.")],
    data_dir: DataDir = Path("data"),
    host: Host = None,
    port: Port = None,
    username: Username = None,
    password: Password = None,
    json: Annotated[bool, typer.Option("--json", help="What was done, as JSON.")] = False,
) -> None:
    """Retain again what was retained before; the broker runs."""
    from cli.retained import undo

    undo(data_dir, find(host, port, username, password), topic, json=json)
