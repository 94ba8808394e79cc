"""`pubsub broker retire`: stops one of several brokers for good."""

from __future__ import annotations

from cli.blocks import with_blocks
from cli.commands.broker_stop import Timeout
from cli.options import AdminOptions
from cli.terminal import output

EXAMPLES = """\b
Example:
  pubsub broker retire --data-dir data/b2

As `pubsub broker stop --drain`, but clients are told not to come back.
"""


@with_blocks
def run(*, broker: AdminOptions, timeout: Timeout = 30.0) -> None:
    """Stop one of several brokers for good.

    Its clients go on at the others.
    """
    from cli.operate.remote import Remote
    from cli.operate.stopping import stop
    from cli.operate.where import find

    where = find(broker)
    stop(where, timeout, "/drain?for_good=true")
    if not isinstance(where, Remote):
        output.note(f"the other brokers have all that it had: {where}/ may be removed")
