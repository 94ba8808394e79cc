"""LineSocket: a client of the line protocol that hides nothing."""

from __future__ import annotations

import re
import socket
import time
from datetime import datetime
from types import TracebackType

TIMEOUT_S = 10.0


class LineSocket:
    """A socket. As a context manager it is closed in the end.

    `confirm`: it asks for answers first, so that each command of a test is answered.
    """

    def __init__(self, port: int, *, confirm: bool = True) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), TIMEOUT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file = self.socket.makefile("rb")
        if confirm:
            assert self.ask("CONFIRM") == "OK"

    def __enter__(self) -> LineSocket:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()
        self.socket.close()

    def write(self, text: str) -> None:
        """In one write, as it is."""
        self.socket.sendall(text.encode())

    def read(self) -> str:
        """The next line, without its end; empty when the broker has closed the connection."""
        return self._file.readline().decode().removesuffix("\n")

    def ask(self, command: str) -> str:
        """Where nothing but the answer can come."""
        self.write(f"{command}\n")
        return self.read()

    def delivered(self) -> str:
        """The next line, a DELIVER, without that word and without its time, which is now."""
        line = self.read()
        match = re.fullmatch(r"DELIVER (.*) (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)", line)
        assert match, line
        at = datetime.fromisoformat(match[2])  # local time
        assert abs(time.time() - at.timestamp()) < 60
        return match[1]
