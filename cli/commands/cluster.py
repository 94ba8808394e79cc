"""`pubsub cluster`: the log that several brokers share: makes it, looks at it, tries it out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EXAMPLES = {
    "up": """\b
Example:
  pubsub cluster up --directory data/cluster
""",
    "init": """\b
Example:
  pubsub cluster init --store nats://a:4222,b:4222,c:4222
""",
    "status": """\b
Example:
  pubsub cluster status --store nats://a:4222,b:4222,c:4222
""",
    "config": """\b
Example:
  pubsub cluster config > nats-pubsub.conf
""",
}
Store = Annotated[
    str, typer.Option("--store", metavar="ADDRESS", help="nats://host:port,host:port,...[/name]")
]
Credentials = Annotated[
    Path | None, typer.Option("--store-credentials", help="File with user:password of the nodes.")
]
Ca = Annotated[Path | None, typer.Option("--store-ca", help="Whose certificates they have.")]
Cert = Annotated[Path | None, typer.Option("--store-cert", help="Our certificate for them, ...")]
Key = Annotated[Path | None, typer.Option("--store-key", help="... and its key.")]
Json = Annotated[bool, typer.Option("--json", help="As one line of JSON.")]


def up(
    directory: Annotated[
        Path, typer.Option("--directory", "-d", help="Where the nodes keep their data.")
    ] = Path("data/cluster"),
    port: Annotated[
        int, typer.Option("--port", "-p", metavar="N", min=1, max=65_532, help="Of the first node.")
    ] = 4222,
) -> None:
    """Run three nodes on this machine, to try it out, until Ctrl-C."""
    from cli.operate import cluster

    cluster.up(directory, port)


def init(
    store: Store,
    replicas: Annotated[
        int,
        typer.Option(
            metavar="N", min=1, max=5, help="Nodes that keep it. Fewer than 3: to try it out."
        ),
    ] = 3,
    bytes_max: Annotated[
        int | None,
        typer.Option("--bytes-max", metavar="N", min=1, help="More is not taken. [no limit]"),
    ] = None,
    credentials: Credentials = None,
    ca: Ca = None,
    cert: Cert = None,
    key: Key = None,
) -> None:
    """Make the log that brokers are to share."""
    from broker.store.shared.access import Access
    from cli.operate import cluster

    cluster.init(store, replicas, bytes_max, Access(credentials, ca, cert, key))


def status(
    store: Store,
    json: Json = False,
    credentials: Credentials = None,
    ca: Ca = None,
    cert: Cert = None,
    key: Key = None,
) -> None:
    """Say which nodes keep the log, how much it is, and who lives."""
    from broker.store.shared.access import Access
    from cli.operate import cluster

    cluster.status(store, Access(credentials, ca, cert, key), as_json=json)


def config(
    name: Annotated[str, typer.Argument(help="Of the log, as in nats://a,b,c/NAME.")] = "log",
) -> None:
    """Print what the configuration of each node needs to have."""
    from cli.operate import cluster

    cluster.config(name)
