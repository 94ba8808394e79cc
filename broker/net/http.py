"""HTTP of an administration listener: one connection between the rim and a library's protocol.

TLS, the header of a proxy, the bounds of the listener and the address of the peer are those of any
`TcpConnection`. The library (uvicorn, of `web`) parses requests and has a timer of its own for a
connection that asks nothing more. Here a request is bounded: it has `connect_timeout_s` to be
whole, as a CONNECT has, but for the time in which we work on it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from broker.clients.faces import Peer, Transport
from broker.errors import PeerError
from broker.message import Monotonic

PAUSE = "http"

logger = logging.getLogger(__name__)


class HttpProtocol(Protocol):
    """What parses the requests; as asyncio has it, but for `shutdown`."""

    def connection_made(self, transport: asyncio.Transport) -> None: ...

    def data_received(self, data: bytes) -> None: ...

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...

    def connection_lost(self, exc: Exception | None) -> None: ...

    def shutdown(self) -> None:
        """Answer what was asked, and end."""
        ...


Welcome = Callable[["HttpConnection"], HttpProtocol]
"""Gives the protocol of a connection that has begun to speak HTTP."""


class HttpConnection(asyncio.Transport):
    """Towards the rim a `NetworkClient`, towards the protocol its transport."""

    def __init__(
        self, welcome: Welcome, socket: Transport, peer: Peer, timeout_s: float, now: Monotonic
    ) -> None:
        super().__init__()
        self.peer = peer
        self._socket = socket
        self._timeout_s = timeout_s
        self._begun_at: Monotonic | None = now
        """When the request began that is not whole; None: we work on one, or there is none."""
        self._ended = False
        self.kept_bytes = 0
        self._protocol = welcome(self)
        self._protocol.connection_made(self)

    # The rim calls

    def receive(self, data: bytes, now: Monotonic) -> int:
        if self._ended:
            return 0
        if not self.kept_bytes:
            self._begun_at = now
        self.kept_bytes += len(data)
        self._protocol.data_received(data)
        return self.kept_bytes

    def end_of_input(self) -> bool:
        """An answer may be due; else the one timeout or the other ends it."""
        return not self._ended

    def deadline(self) -> Monotonic | None:
        return None if self._begun_at is None else Monotonic(self._begun_at + self._timeout_s)

    def expire(self, now: Monotonic) -> None:
        if (deadline := self.deadline()) is not None and now >= deadline:
            logger.info("%s: no whole HTTP request in time", self.peer.address)
            self.close()

    def writable(self, *, yes: bool) -> None:
        (self._protocol.resume_writing if yes else self._protocol.pause_writing)()

    def lost(self) -> None:
        self._ended = True
        self._protocol.connection_lost(None)

    def shut_down(self) -> None:
        self._protocol.shutdown()

    def dismiss(self, error: PeerError) -> None:
        self.abort()

    def evict(self, reason: str) -> None:
        self.abort()

    def failed(self, error: Exception) -> None:
        logger.critical("%s: HTTP is cut off", self.peer.address, exc_info=error)
        self.abort()

    # Who answers calls

    def works(self) -> None:
        """What takes time now is ours."""
        self._begun_at = None

    def goes_on(self, now: Monotonic) -> None:
        """The rest of the request has to come."""
        self._begun_at = now

    def is_known(self) -> None:
        """Its client has said who it is."""
        if not self._ended:
            self._socket.deadline_moved()

    def answered(self) -> None:
        self._begun_at = None
        self.kept_bytes = 0

    def has_left(self) -> bool:
        return self._ended or self._socket.has_left()

    # The protocol calls

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self._ended:
            self._socket.write(bytes(data))

    def is_closing(self) -> bool:
        return self._ended

    def close(self) -> None:
        if not self._ended:
            self._ended = True
            self._socket.close()

    def abort(self) -> None:
        self._ended = True
        self._socket.abort()

    def pause_reading(self) -> None:
        self._socket.pause_reading(PAUSE)

    def resume_reading(self) -> None:
        self._socket.resume_reading(PAUSE)
