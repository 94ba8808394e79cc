"""`pubsub log trim`: which messages to remove by hand, from its options."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.blocks import with_blocks
from cli.options import AdminOptions

EXAMPLES = """\b
Examples:
  pubsub log trim --before @-7d --dry-run
  pubsub log trim --before @2026-11-01 'debug/#' --yes
  pubsub log trim --before -1000 'zigbee2mqtt/#' --yes
"""


@with_blocks
def run(
    before: Annotated[
        str, typer.Option("--before", metavar="SPEC", help="As `pubsub sub --from`; -N: all but N.")
    ],
    filters: Annotated[list[str] | None, typer.Argument(help="Topic filters; all topics.")] = None,
    *,
    broker: AdminOptions,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    unread: Annotated[
        bool,
        typer.Option("--unread", help="Also what a subscriber has not acknowledged; it is told."),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: Annotated[bool, typer.Option("--json", help="As one line of JSON.")] = False,
) -> None:
    """Remove old messages now, whether or not the broker runs.

    Never what is retained, nor what a durable subscriber has not acknowledged (but --unread). The
    space is used for new messages; `pubsub compact` gives it back.
    """
    from cli.log.log_trim import trim
    from cli.operate.where import find

    trim(find(broker), before, filters or [], dry_run=dry_run, unread=unread, yes=yes, json=json)
