"""`pubsub cert revoke`: whose certificate is to count no more, from its options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EXAMPLES = """\b
Examples:
  pubsub cert revoke kitchen
  pubsub cert revoke certs/kitchen.old.crt
"""


def run(
    certificate: Annotated[
        str, typer.Argument(metavar="USER|FILE", help="Whose certificate, or the certificate.")
    ],
    directory: Annotated[Path, typer.Option("--dir", help="Where the files are.")] = Path("certs"),
) -> None:
    """Revoke the certificate of a client that is lost.

    It goes into the list of revocations (crl.pem), which a listener reads with tls_crl.
    """
    from cli.operate.cert_revoke import revoke

    revoke(directory, certificate)
