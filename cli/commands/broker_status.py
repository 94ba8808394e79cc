"""`pubsub broker status`: what the broker tells of itself: a summary, all figures, or JSON."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from typing import Annotated

import typer

from cli.blocks import with_blocks
from cli.options import AdminOptions
from cli.terminal import output

EXAMPLES = """\b
Examples:
  pubsub broker status
  pubsub broker status --all | grep disk
  pubsub broker status --json

On a terminal: what is wrong, if anything is, and what it is doing. A pipe
gets all figures, as --all does.
"""


@with_blocks
def run(
    *,
    broker: AdminOptions,
    everything: Annotated[
        bool, typer.Option("--all", help="All figures, a line for each.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="As one line of JSON.")] = False,
) -> None:
    """What the broker on a data directory is doing."""
    from cli.operate import status
    from cli.operate.admin import request
    from cli.operate.where import find

    told = request("GET", "/status", find(broker))
    if as_json:
        output.text(json.dumps(told) + "\n")
    elif everything or not output.to_terminal():
        rows = list(_flat(told))
        width = max(len(name) for name, _ in rows)
        output.text("".join(f"{name:<{width}}  {output.escaped(value)}\n" for name, value in rows))
    else:
        columns = shutil.get_terminal_size().columns
        output.text("".join(f"{line}\n" for line in status.lines(told, columns)))


def _flat(status: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in status.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            yield f"{prefix}{name}", ", ".join(map(str, value))
        else:
            yield f"{prefix}{name}", str(value)
