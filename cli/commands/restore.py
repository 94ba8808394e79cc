"""`pubsub restore`: which backup becomes the log of which directory, from its options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.options import DataDir

EXAMPLES = """\b
Examples:
  pubsub restore pubsub-backup.db
  pubsub restore pubsub-backup.db --replace
"""


def run(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A backup, or a copy of a log at rest.")
    ],
    data_dir: DataDir = Path("data"),
    replace: Annotated[
        bool, typer.Option("--replace", help="Also where a log is; that is set aside, and kept.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="As one line of JSON.")] = False,
) -> None:
    """Make a backup the log of a data directory.

    The broker has to be stopped. No offset is given twice afterwards.
    """
    from cli.care.restore import restore

    restore(file, data_dir, replace=replace, json=json)
