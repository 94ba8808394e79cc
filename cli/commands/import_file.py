"""`pubsub import`: which file, and to which broker, from its options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.blocks import with_blocks
from cli.net.sources import find_without_topic
from cli.options import BrokerOptions

EXAMPLES = """\b
Examples:
  pubsub import all.jsonl
  pubsub import home.csv --no-retain --json

Each message is published and acknowledged: the broker gives it a new offset and the time of now,
and who is subscribed gets it. Payload, topic, RETAIN and properties are as they were; QoS 0 becomes
1, since only that is acknowledged; a Message Expiry Interval begins anew.

FILE.imported keeps how far it came: the same command again goes on there, and imports only what is
new. What was on its way when it was killed (at most 1,000 messages) may come twice.
"""


@with_blocks
def run(
    file: Annotated[Path, typer.Argument(help="What `pubsub export` wrote.")],
    *,
    broker: BrokerOptions,
    format: Annotated[
        str | None,
        typer.Option("--format", help="jsonl, csv or parquet. [by the name of FILE]"),
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="From its beginning, whatever was imported.")
    ] = False,
    no_retain: Annotated[
        bool, typer.Option("--no-retain", help="Change nothing that is retained.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="What was done, as JSON.")] = False,
) -> None:
    """Publish what an export has; the broker runs."""
    from cli.log.export import format_of
    from cli.log.import_file import import_file

    import_file(
        file,
        format_of(file, format),
        find_without_topic(broker),
        again=again,
        no_retain=no_retain,
        as_json=json,
    )
