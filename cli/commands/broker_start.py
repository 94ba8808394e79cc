"""`pubsub broker start`: the broker in the foreground, until Ctrl-C, SIGTERM or `broker stop`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import DATA_DIR

if TYPE_CHECKING:
    from broker.server.server import Server

EXAMPLES = """\b
Example:
  pubsub broker start --port 9000 --data-dir data
"""


def run(
    host: Annotated[str | None, typer.Option(help="Address to listen on. [127.0.0.1]")] = None,
    port: Annotated[
        int | None,
        typer.Option(
            "--port", "-p", metavar="N", min=0, max=65_535, help="Port, 0 for any free one. [9000]"
        ),
    ] = None,
    unix_socket: Annotated[
        Path | None, typer.Option(help="Listen on a Unix socket too, for this user alone.")
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(envvar=DATA_DIR, help="Where the log is kept. [data]")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file with settings.")] = None,
    durability: Annotated[
        str | None,
        typer.Option(help="fsync: acknowledged means on the disk; os: with the kernel. [fsync]"),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(help="sqlite, or a log of several brokers: nats://host:port,... [sqlite]"),
    ] = None,
    allow_anonymous: Annotated[
        bool | None,
        typer.Option("--allow-anonymous", help="Let clients connect without a user name."),
    ] = None,
    log_level: Annotated[
        str | None,
        typer.Option(help="Least of what is told: debug, info, warning or error. [info]"),
    ] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Tell everything: --log-level debug.")
    ] = False,
    accept_loss: Annotated[
        bool,
        typer.Option(
            "--accept-loss",
            help="Start also without what a damaged write-ahead log has lost; keep that aside.",
        ),
    ] = False,
) -> None:
    """Run the broker in the foreground; Ctrl-C stops it."""
    import logging

    from broker.config import Config
    from broker.server import serving
    from broker.server.reloading import Source
    from cli.process import core_dumps, heap
    from cli.process.diagnostics import Diagnostics

    overrides = {
        "host": host,
        "port": port,
        "unix_socket": unix_socket,
        "data_dir": data_dir,
        "durability": durability,
        "store": store,
        "allow_anonymous": allow_anonymous,
        "log_level": "debug" if verbose else log_level,
    }

    def read() -> Config:
        return Config.load(config, overrides)

    core_dumps.forbid()
    settings = read()
    with Diagnostics(settings.log_level) as diagnostics, heap.giving_back():
        serving.run(
            *(settings, _announce, diagnostics.hang_up),
            accept_loss=accept_loss,
            source=Source(read, diagnostics.tell_from),
        )
        logging.getLogger(__name__).info("stopped")


def _announce(server: Server) -> None:
    import logging

    from broker.config import DATABASE

    logger = logging.getLogger(__name__)

    host, port = server.address
    if ":" in host:
        host = f"[{host}]"
    unix_socket = server.config.unix_socket
    also = f" and {unix_socket}" if unix_socket is not None else ""
    logger.info(
        "listening on %s:%d%s, data in %s/ (%s); Ctrl-C stops it",
        *(host, port, also, server.config.data_dir, DATABASE),
    )
