"""The socket that paho sees: few system calls, each for many packets."""

from __future__ import annotations

import contextlib
import socket
import time

BURST_BYTES = 256 * 1024
CLOSE_TIMEOUT_S = 1.0


class BurstSocket:
    """Reads from what `fill` received; what is written waits for `flush`."""

    def __init__(self, inner: socket.socket) -> None:
        self._inner = inner
        self._received = b""
        self._position = 0
        self._ended = False
        self.unsent = bytearray()
        inner.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def fill(self) -> None:
        """Receive once, behind what paho has left of a packet that is not complete."""
        try:
            burst = self._inner.recv(BURST_BYTES)
        except BlockingIOError:
            return
        except OSError:
            burst = b""
        self._ended = not burst
        self._received = self._received[self._position :] + burst
        self._position = 0

    def pending(self) -> bool:
        return self._position < len(self._received) or self._ended

    def flush(self) -> None:
        """Send as much as the kernel takes. If it takes no more ever, reading tells why."""
        try:
            while self.unsent:
                del self.unsent[: self._inner.send(self.unsent)]
        except BlockingIOError:
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
        self.unsent += data
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
