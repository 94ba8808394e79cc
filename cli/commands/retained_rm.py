"""`pubsub retained rm`: from which topics, from its options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.address import find
from cli.options import DataDir, Host, Password, Port, Username

EXAMPLES = """\b
Examples:
  pubsub retained rm home/lamp
  pubsub retained ls 'home/#' -F %t | xargs -d '\\n' pubsub retained rm
"""


def run(
    topics: Annotated[list[str], typer.Argument(help="Topics.")],
    data_dir: DataDir = Path("data"),
    host: Host = None,
    port: Port = None,
    username: Username = None,
    password: Password = None,
    json: Annotated[bool, typer.Option("--json", help="What was done, as JSON.")] = False,
) -> None:
    """Retain nothing on these topics any more; the broker runs."""
    from cli.retained import remove

    remove(data_dir, find(host, port, username, password), topics, json=json)
