"""`pubsub broker start`: the broker in the foreground, until Ctrl-C, SIGTERM or `broker stop`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from broker.config import DATABASE, Config
from broker.server import Server, run
from cli import output


def serve(config_file: Path | None, overrides: Mapping[str, Any]) -> None:
    """Raises ConfigError and StoreError: it did not start, or had to stop."""
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s", level=logging.WARNING)
    run(Config.load(config_file, overrides), _announce)
    output.note("stopped")


def _announce(server: Server) -> None:
    host, port = server.address
    if ":" in host:
        host = f"[{host}]"
    unix_socket = server.config.unix_socket
    also = f" and {unix_socket}" if unix_socket is not None else ""
    output.note(
        f"listening on {host}:{port}{also}, data in {server.config.data_dir}/ ({DATABASE}); "
        "Ctrl-C stops it"
    )
