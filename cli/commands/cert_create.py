"""`pubsub cert create`: which certificate to make, from its options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EXAMPLES = """\b
Examples:
  pubsub cert create
  pubsub cert create home.lan 192.168.1.5
  pubsub cert create --client kitchen
"""


def run(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Host names and addresses of the broker; this machine's."),
    ] = None,
    client: Annotated[
        str | None, typer.Option(metavar="USER", help="For a client, who is this user then.")
    ] = None,
    directory: Annotated[Path, typer.Option("--dir", help="Where the files are.")] = Path("certs"),
    days: Annotated[
        int, typer.Option(metavar="N", min=1, max=36_500, help="How long it is good.")
    ] = 820,
    force: Annotated[
        bool,
        typer.Option("--force", help="Replace a key and its certificate, not the authority's."),
    ] = False,
) -> None:
    """Make certificates for TLS.

    An authority, if there is none, and what it signs: for the broker, or with --client for one of
    its clients. Keys get mode 0600.
    """
    from cli.operate.cert_create import create

    create(directory, names or [], client, days, force=force)
