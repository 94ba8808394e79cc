"""The transport of a loop, without a loop."""

from __future__ import annotations

import asyncio
import socket


class Kernel(asyncio.Transport):
    def __init__(self, its_socket: socket.socket) -> None:
        super().__init__({"socket": its_socket, "peername": "here"})
        self.aborted = False
        self.written = b""

    def abort(self) -> None:
        self.aborted = True

    close = abort

    def is_closing(self) -> bool:
        return self.aborted

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def write_eof(self) -> None:
        self.aborted = True
