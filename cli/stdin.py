"""Standard input read beside a connection: lines as they come, without blocking what else waits."""

from __future__ import annotations

import os
import select
from collections import deque

READ_BYTES = 1 << 16


class Lines:
    """Lines of a file descriptor, read ahead no further than one read; a newline ends each."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._partial = b""
        self.waiting: deque[bytes] = deque()
        self.ended = False

    def fileno(self) -> int:
        return self._fd

    def read(self) -> None:
        """Blocks while there is nothing to read: only after the descriptor was seen readable."""
        block = os.read(self._fd, READ_BYTES)
        *lines, self._partial = (self._partial + block).split(b"\n")
        self.waiting.extend(lines)
        if not block:
            self.ended = True
            if self._partial:
                self.waiting.append(self._partial)

    def readable(self) -> bool:
        return bool(select.select([self], [], [], 0)[0])
