"""Standard input read beside a connection: lines as they come, without blocking what else waits."""

from __future__ import annotations

import os
import select
from collections import deque

from cli.terminal.failure import CommandFailed, Exit

READ_BYTES = 1 << 16
VARINT_MAX = 268_435_455
"""Bytes that a packet has at most, beside its first few. [MQTT-1.5.5-1]"""


class Lines:
    """Lines of a file descriptor, read ahead no further than one read; a newline ends each."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._partial = bytearray()
        self.waiting: deque[bytes] = deque()
        self.ended = False

    def fileno(self) -> int:
        return self._fd

    def read(self) -> None:
        """Blocks while there is nothing to read: only after the descriptor was seen readable.
        Raises CommandFailed: the line has no end."""
        block = os.read(self._fd, READ_BYTES)
        *lines, rest = block.split(b"\n")
        if lines:
            lines[0] = bytes(self._partial) + lines[0]
            self.waiting.extend(lines)
            self._partial.clear()
        self._partial += rest  # A long line is copied once.
        if not block:
            self.ended = True
            if self._partial:
                self.waiting.append(bytes(self._partial))
        if len(self._partial) > VARINT_MAX:
            raise CommandFailed("a line is longer than MQTT can carry (256 MB)", code=Exit.USAGE)

    def readable(self) -> bool:
        return bool(select.select([self], [], [], 0)[0])
