"""`pubsub export`: which messages, and to which file, from its options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.options import DataDir

EXAMPLES = """\b
Examples:
  pubsub export all.jsonl
  pubsub export 'home/#' home.csv --from yesterday
  pubsub export - --format jsonl | gzip > all.jsonl.gz
  pubsub export all.parquet

The same command again goes on behind the last message of a .jsonl or .csv file: after an
interruption, or for what came since. Payloads that are no UTF-8 are in base64 (payload_base64).

Parquet is an extra: pip install 'pubsub-broker[parquet]'
"""


def run(
    arguments: Annotated[
        list[str], typer.Argument(metavar="[FILTER]... FILE", help="FILE - is standard output.")
    ],
    data_dir: DataDir = Path("data"),
    start: Annotated[
        str | None, typer.Option("--from", metavar="SPEC", help="As `pubsub log --from`.")
    ] = None,
    until: Annotated[
        str | None, typer.Option("--until", metavar="SPEC", help="Up to there.")
    ] = None,
    publisher: Annotated[str | None, typer.Option(help="Only from this client.")] = None,
    format: Annotated[
        str | None,
        typer.Option("--format", help="jsonl, csv or parquet. [by the name of FILE]"),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="What was done, as JSON.")] = False,
) -> None:
    """Messages of the log into a file: JSON lines, CSV or Parquet."""
    from cli.log.export import export, format_of
    from cli.log.history import Options

    *filters, name = arguments
    path = Path(name)
    options = Options(
        data_dir=data_dir,
        filters=tuple(filters),
        last=None,
        start=start,
        until=until,
        publisher=publisher,
    )
    export(options, path, format_of(path, format), as_json=json)
