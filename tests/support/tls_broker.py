"""A broker process that listens twice: as always, and with TLS."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.support.broker_process import BrokerProcess, free_port
from tests.support.certificates import Network
from tests.support.toml import Toml


class TlsBroker(BrokerProcess):
    """`port` is without TLS, `tls_port` with it. `of_listener` are more keys of the latter."""

    tls_ports: dict[int, int] = {}  # noqa: RUF012
    """Of all in this process, by their port without TLS."""

    def __init__(
        self,
        directory: Path,
        of_listener: dict[str, Any] | None = None,
        network: Network | None = None,
    ) -> None:
        self.network = network or Network(directory)
        self.tls_port = free_port()
        port = free_port()
        server = self.network.server
        tls = {
            "port": self.tls_port,
            "tls_certificate": str(server.certificate),
            "tls_key": str(server.key),
            **(of_listener or {}),
        }
        # Ours is last: once it is listened on, so is the other.
        listeners = Toml(f"[{_inline(tls)}, {{port = {port}}}]")
        super().__init__(directory, {"will_restart_grace_s": 0, "listeners": listeners})
        self.port = port
        self.tls_ports[port] = self.tls_port


def _inline(table: dict[str, Any]) -> str:
    return "{" + ", ".join(f"{key} = {json.dumps(value)}" for key, value in table.items()) + "}"
