"""Address: where a shared log is, as the setting `store` says it."""

from __future__ import annotations

import re
from typing import NamedTuple

from broker.errors import ConfigError

SCHEME = "nats://"
NAME = "log"
"""Of the log, where the address has none."""
PORT = 4222
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_NODE = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(\d{1,5}))?")


class Address(NamedTuple):
    """`servers` as `nats://host:port`."""

    servers: tuple[str, ...]
    name: str


def parse(text: str) -> Address:
    """`nats://host:port,host:port/name`; port and name may be left out. Raises ConfigError."""
    nodes, _, name = text.replace(SCHEME, "").partition("/")
    found = [_NODE.fullmatch(node) for node in nodes.split(",")]
    if not text.startswith(SCHEME) or None in found or not _NAME.fullmatch(name or NAME):
        raise ConfigError(
            "store", text, 'must be "sqlite", or like nats://host:4222,host:4222,host:4222/name'
        )
    ports = [int(node[2] or PORT) for node in found if node is not None]
    if not all(0 < port < 65_536 for port in ports):
        raise ConfigError("store", text, "has a port that is none")
    hosts = [node[1] for node in found if node is not None]
    servers = [f"{SCHEME}{host}:{port}" for host, port in zip(hosts, ports, strict=True)]
    return Address(tuple(servers), name or NAME)


def stream_of(name: str) -> str:
    """Of a log: its stream at the nodes."""
    return f"PUBSUB_{name}"


def subject_of(name: str) -> str:
    """What its records are published to."""
    return f"pubsub.{name}"
