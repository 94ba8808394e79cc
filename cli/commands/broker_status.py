"""`pubsub broker status`: what the broker tells about itself, a line for each figure or as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated

import typer

from cli import output
from cli.options import DataDir

EXAMPLES = """\b
Example:
  pubsub broker status --json
"""


def run(
    data_dir: DataDir = Path("data"),
    as_json: Annotated[bool, typer.Option("--json", help="As one line of JSON.")] = False,
) -> None:
    """What the broker on a data directory is doing."""
    from cli.admin import request

    status = request("GET", "/status", data_dir)
    if as_json:
        output.text(json.dumps(status) + "\n")
        return
    rows = list(_flat(status))
    width = max(len(name) for name, _ in rows)
    output.text("".join(f"{name:<{width}}  {output.escaped(value)}\n" for name, value in rows))


def _flat(status: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in status.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", str(value)
