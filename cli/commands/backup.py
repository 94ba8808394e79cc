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
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The new file.")],
    data_dir: DataDir = Path("data"),
    json: Annotated[bool, typer.Option("--json", help="As one line of JSON.")] = False,
) -> None:
    """Copy the log into one file, and verify that.

    Also while the broker runs: the copy is of one moment.
    """
    from cli.care.backup import backup

    backup(data_dir, file, json=json)
