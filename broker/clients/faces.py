"""What the rim (net/) and a client know of each other: two faces, and nothing else.

The rim moves bytes and keeps one timer for each connection. `now` is the time of
its clock, which is the loop's.
"""

from __future__ import annotations

from typing import Protocol

from broker.message import Monotonic


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
        """What is kept of them and of earlier ones: of a packet or line that is not whole, and of
        what waits for a step."""
        ...

    def end_of_input(self) -> bool:
        """The peer has closed its side; whether to stay half open, since answers are due."""
        ...

    def deadline(self) -> Monotonic | None:
        """Monotonic second at which `expire` is to be called; None: never."""
        ...

    def expire(self, now: Monotonic) -> None:
        """Give up what is overdue at `now`; of no effect if nothing is."""
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

    def evict(self, reason: str) -> None:
        """Close, and keep nothing of `kept_bytes`: others need the room."""
        ...

    def failed(self, error: Exception) -> None:
        """We made a mistake while this client was served: log it and cut the client off. Raises
        nothing."""
        ...
