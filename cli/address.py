"""Which broker a command talks to and as whom, and what it says when that does not work."""

from __future__ import annotations

from dataclasses import dataclass

from cli.failure import CommandFailed, Exit


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    host: str = "127.0.0.1"
    port: int = 9000
    username: str | None = None
    password: str | None = None
    keep_alive_s: int = 60

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    def unreachable(self, reason: str) -> CommandFailed:
        return CommandFailed(
            f"no MQTT broker answers at {self} ({reason})",
            "is it running? start it with: pubsub broker start",
            Exit.UNREACHABLE,
        )

    def refused(self, reason: str, *, not_authorized: bool) -> CommandFailed:
        """CONNACK said no."""
        said = f"the broker at {self} refused the connection: {reason}"
        if not_authorized:
            return CommandFailed(said, "check -u and -P", Exit.NOT_AUTHORIZED)
        return CommandFailed(said)
