"""A broker that is a script: the test says every byte that it answers."""

from __future__ import annotations

import socket
import threading

from cli.net.address import Address


class ScriptedBroker:
    """One connection at a time: `expect` it, then `socket` speaks, and `heard` is what came."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = Address(port=self._listener.getsockname()[1])
        self._socket: socket.socket | None = None

    def expect(self, handshake: bytes) -> None:
        """Let the next client connect, with answers written in advance."""
        self._thread = threading.Thread(target=self._accept, args=(handshake,))
        self._thread.start()

    def _accept(self, handshake: bytes) -> None:
        self._socket, _ = self._listener.accept()
        self._socket.settimeout(10)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.sendall(handshake)

    @property
    def socket(self) -> socket.socket:
        self._thread.join()
        assert self._socket is not None
        return self._socket

    def heard(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            data += self.socket.recv(count - len(data))
        return data

    def close(self) -> None:
        self._listener.close()
        if self._socket is not None:
            self._socket.close()
