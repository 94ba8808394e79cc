"""`pubsub backup`: which log to copy, and where to, from its options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.options import DataDir

EXAMPLES = """\b
Example:
  pubsub backup pubsub-backup.db
"""


def run(
    file: Annotated[Path, typer.Argument(help="The new file.")],
    data_dir: DataDir = Path("data"),
    json: Annotated[bool, typer.Option("--json", help="As one line of JSON.")] = False,
) -> None:
    """Copy the log, also of a running broker, into one file, and verify that."""
    from cli.backup import backup

    backup(data_dir, file, json=json)
