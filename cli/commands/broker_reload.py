"""`pubsub broker reload`: settings and certificates are read again, and what came of it."""

from __future__ import annotations

from cli.blocks import with_blocks
from cli.options import AdminOptions
from cli.terminal import output

EXAMPLES = """\b
Example:
  pubsub broker reload
"""


@with_blocks
def run(*, broker: AdminOptions) -> None:
    """Have the broker read its settings and certificates again.

    No connection is lost. If something is wrong in them, what was in force stays in force.
    """
    from cli.operate.admin import request
    from cli.operate.where import find

    said = request("POST", "/reload", find(broker))
    changed, restart = said["changed"], said["restart"]
    output.note(f"read again; in force now: {', '.join(changed) or 'nothing new'}")
    if restart:
        output.note(f"in force only after a restart: {', '.join(restart)}")
    for doubt in said["doubts"]:
        output.note(f"careful clients will not connect: {doubt}")
