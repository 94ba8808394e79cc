"""`pubsub subscribers seek`: lets one go on elsewhere in the log."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.options import DataDir, DryRun, SeekTo, SubscriberId

EXAMPLES = """\b
Examples:
  pubsub subscribers seek sub1 --to @-1h --dry-run
  pubsub subscribers seek sub1 --to latest
"""


def run(
    name: SubscriberId,
    to: SeekTo,
    dry_run: DryRun = False,
    data_dir: DataDir = Path("data"),
    json: Annotated[bool, typer.Option("--json", help="As one line of JSON.")] = False,
) -> None:
    """Let a subscriber go on at another place, connected or not.

    Back: it is sent again what lies between. Forward: that is skipped, and counted. What is in
    flight stays so until it is acknowledged.
    """
    from cli.subscribers import seek

    seek(data_dir, name, to, dry_run=dry_run, json=json)
