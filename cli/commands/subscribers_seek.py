"""`pubsub subscribers seek`: lets one go on elsewhere in the log."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.blocks import with_blocks
from cli.options import AdminOptions, DryRun, SeekTo, SubscriberId

EXAMPLES = """\b
Examples:
  pubsub subscribers seek sub1 --to @-1h --dry-run
  pubsub subscribers seek sub1 --to latest
"""


@with_blocks
def run(
    name: SubscriberId,
    to: SeekTo,
    dry_run: DryRun = False,
    *,
    broker: AdminOptions,
    json: Annotated[bool, typer.Option("--json", help="As one line of JSON.")] = False,
) -> None:
    """Let a subscriber go on at another place, connected or not.

    Back: it is sent again what lies between. Forward: that is skipped, and counted. What is in
    flight stays so until it is acknowledged.
    """
    from cli.operate.subscribers import seek
    from cli.operate.where import find

    seek(find(broker), name, to, dry_run=dry_run, json=json)
