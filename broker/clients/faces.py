"""The two interfaces between the rim (net/) and a client. They know no more of each other.

The rim moves bytes and keeps one timer for each connection. `now` is the loop's time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from broker.errors import PeerError
from broker.message import Monotonic

NOT_PAUSED: frozenset[str] = frozenset()
"""No reason not to read. One object for all, as an empty set takes 216 bytes."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end, as far as the rim knows."""

    address: str
    """As the operator is told: `192.0.2.1:50000`, `[2001:db8::1]:50000`, or the path of the Unix
    socket."""
    host: str = ""
    """Its IP address; "": it came by a Unix socket."""
    certificate_user: str | None = None
    """The user whom its client certificate names; None: it showed none."""
    certificate: bytes | None = None
    """That certificate, as DER."""


class Transport(Protocol):
    """The rim, as a client sees it: one connection to write to."""

    def write(self, data: bytes) -> None: ...

    def close(self) -> None:
        """Send what was written, then close."""
        ...

    def abort(self) -> None:
        """Close at once: nothing more leaves, not even what was written."""
        ...

    def pause_reading(self, reason: str) -> None:
        """Read nothing until `resume_reading` was called for every reason."""
        ...

    def resume_reading(self, reason: str) -> None: ...

    def has_left(self) -> bool:
        """Whether the peer is gone, or has ended its side and left nothing to be read but a
        farewell."""
        ...

    def deadline_moved(self) -> None:
        """The client's deadline may be earlier than it was."""
        ...


class NetworkClient(Protocol):
    """A client, as the rim sees it, whatever protocol it speaks."""

    def receive(self, data: bytes, now: Monotonic) -> int:
        """Bytes came from the socket. Returns `kept_bytes`."""
        ...

    @property
    def kept_bytes(self) -> int:
        """Bytes in memory for this client: an unfinished packet or line, and packets that wait for
        a step."""
        ...

    def end_of_input(self) -> bool:
        """The peer has ended its side. Returns whether to stay half open: answers are due."""
        ...

    def deadline(self) -> Monotonic | None:
        """Monotonic second at which `expire` is to be called; None: never."""
        ...

    def expire(self, now: Monotonic) -> None:
        """Act on a deadline that has passed at `now`; of no effect if none has."""
        ...

    def writable(self, *, yes: bool) -> None:
        """The socket's buffer has room again, or is full."""
        ...

    def lost(self) -> None:
        """The connection is gone, whoever ended it."""
        ...

    def shut_down(self) -> None:
        """The broker stops: say so and close."""
        ...

    def dismiss(self, error: PeerError) -> None:
        """Say why, and close."""
        ...

    def evict(self, reason: str) -> None:
        """Close, and keep nothing of `kept_bytes`: others need the room."""
        ...

    def failed(self, error: Exception) -> None:
        """We made a mistake while this client was served: log it and cut the client off. Raises
        nothing."""
        ...
