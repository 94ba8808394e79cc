"""A listener: where connections come in, what is spoken there, and who may come. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from broker.errors import ConfigError

PROTOCOLS = ("mqtt", "websocket", "lines")
"""What a listener may speak. The first bytes of a connection tell which it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """A `[[listeners]]`. Its bounds are those of the settings of the same name."""

    host: str = "127.0.0.1"
    port: int | None = None
    unix_socket: Path | None = None
    """In place of host and port. For this user alone."""
    protocols: tuple[str, ...] = PROTOCOLS
    allow_anonymous: bool | None = None
    """Here; None: as the broker's `allow_anonymous`."""
    connections_max: int | None = None
    """Of this listener, beside those of all together."""
    packet_bytes_max: int | None = None
    """Here; None: as the broker's."""

    def __post_init__(self) -> None:
        if (self.port is None) == (self.unix_socket is None):
            raise ConfigError("listeners.port", self.port, "give either a port or a unix_socket")
        if not self.protocols or not set(self.protocols) <= set(PROTOCOLS):
            known = ", ".join(PROTOCOLS)
            raise ConfigError("listeners.protocols", self.protocols, f"must be some of {known}")
