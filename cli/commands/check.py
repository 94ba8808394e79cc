"""`pubsub check`: which log to look at, from its options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.options import DataDir

EXAMPLES = """\b
Examples:
  pubsub check
  pubsub check --json
"""


def run(
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE", help="A backup, or any other copy. [the log in the data directory]"
        ),
    ] = None,
    data_dir: DataDir = Path("data"),
    json: Annotated[bool, typer.Option("--json", help="A line of JSON per problem.")] = False,
) -> None:
    """Read the whole log, and report what is damaged.

    Also while the broker runs. Damage ends it with exit code 74.
    """
    from broker.config import DATABASE
    from cli.care.check import check
    from cli.log.database import database_of

    check(data_dir / DATABASE if file is None else database_of(file), json=json)
