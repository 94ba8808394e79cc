"""`pubsub broker retire`: stops one of several brokers for good."""

from __future__ import annotations

from pathlib import Path

from cli import output
from cli.commands.broker_stop import Timeout
from cli.options import DataDir

EXAMPLES = """\b
Example:
  pubsub broker retire --data-dir data/b2

As `pubsub broker stop --drain`, but clients are told not to come back.
"""


def run(data_dir: DataDir = Path("data"), timeout: Timeout = 30.0) -> None:
    """Stop a broker of several for good: its clients go on at the others."""
    from cli.stopping import stop

    stop(data_dir, timeout, "/drain?for_good=true")
    output.note(f"the other brokers have all that it had: {data_dir}/ may be removed")
