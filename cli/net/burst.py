"""The socket that paho sees: few system calls, each for many packets, also through TLS and a
WebSocket.

TLS hands on at most one record (16 KiB) at a time, so that is read until nothing is left.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from typing import TYPE_CHECKING

from cli.net.address import Address

if TYPE_CHECKING:
    from cli.net.websocket import WebSocketFraming

BURST_BYTES = 256 * 1024
CLOSE_TIMEOUT_S = 1.0
TLS_ALERT = b"\x15\x03"
"""What a port with TLS answers to a client without. In MQTT it would be a second CONNECT."""
NOT_NOW = ssl.SSLWantReadError, ssl.SSLWantWriteError


def burst_of(address: Address, connected: socket.socket, timeout_s: float) -> BurstSocket:
    """With the handshakes of TLS and WebSocket done, if the address has them.

    Raises OSError, ssl.SSLError among them, and CommandFailed: a file for TLS cannot be used. Then
    it is closed.
    """
    try:
        connected.settimeout(timeout_s)
        if address.tls is not None:
            from cli.net.tls import context_of

            connected = context_of(address).wrap_socket(connected, server_hostname=address.host)
        if address.websocket is None:
            return BurstSocket(connected)
        from cli.net.websocket import WebSocketFraming

        framing = WebSocketFraming(address)
        return BurstSocket(connected, framing, framing.shake_hands(connected))
    except BaseException:
        connected.close()
        raise


class BurstSocket:
    """Reads from what `fill` received; what is written waits for `flush`."""

    def __init__(
        self,
        inner: socket.socket,
        framing: WebSocketFraming | None = None,
        received: bytes = b"",
    ) -> None:
        """`received`: what came along with the handshake of `framing`."""
        self._inner = inner
        self._framing = framing
        self._received = received
        self._position = 0
        self._ended = False
        self.failure: ssl.SSLError | None = None
        """What TLS said when it ended."""
        self.unsent = bytearray()
        inner.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def fill(self) -> None:
        """Receive once, behind what paho has left of a packet that is not complete."""
        burst = bytearray()
        try:
            while more := self._inner.recv(BURST_BYTES):
                burst += more
                if len(burst) >= BURST_BYTES or not isinstance(self._inner, ssl.SSLSocket):
                    break
            self._ended = not more
        except (BlockingIOError, *NOT_NOW):
            pass
        except OSError as error:
            self._ended = True
            self.failure = error if isinstance(error, ssl.SSLError) else None
        if burst[:2] == TLS_ALERT and not self._received:
            burst.clear()
            self._ended = True
        framing = self._framing
        if framing is not None:
            burst[:] = framing.received(burst)
            self.unsent += framing.answers()
        self._received = self._received[self._position :] + burst
        self._position = 0

    def pending(self) -> bool:
        return self._position < len(self._received) or self._ended

    def flush(self) -> None:
        """Send as much as the kernel takes. If it takes no more ever, reading tells why."""
        try:
            while self.unsent:
                del self.unsent[: self._inner.send(self.unsent)]
        except (BlockingIOError, *NOT_NOW):
            pass
        except OSError:
            self.unsent.clear()

    def recv(self, size: int) -> bytes:
        chunk = self._received[self._position : self._position + size]
        if not chunk and not self._ended:
            raise BlockingIOError
        self._position += len(chunk)
        return chunk

    def send(self, data: bytes | bytearray) -> int:
        self.unsent += data if self._framing is None else self._framing.framed(data)
        return len(data)

    def close(self) -> None:
        """Bounded in time. Reads to the end first: closing with unread data would reset the
        connection, and the acknowledgements on their way with it."""
        deadline = time.monotonic() + CLOSE_TIMEOUT_S
        with contextlib.suppress(OSError):
            self._inner.settimeout(CLOSE_TIMEOUT_S)
            self._inner.sendall(self.unsent)
            self._inner.shutdown(socket.SHUT_WR)
            while time.monotonic() < deadline and self._inner.recv(BURST_BYTES):
                pass
        self.unsent.clear()
        self._inner.close()

    def fileno(self) -> int:
        return self._inner.fileno()

    def setblocking(self, flag: bool) -> None:
        self._inner.setblocking(flag)
