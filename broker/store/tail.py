"""The newest batches on their way from a store to one reader of `tail`, without the disk."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from broker.message import Message, Offset

TAIL_QUEUE_BYTES_MAX = 8 << 20
"""Live batches (with 200 bytes for each message) that wait for a reader of `tail`; beyond, it
reads them from the database."""


class Tail:
    """Committed batches on their way to one reader of `tail`, as long as it keeps up."""

    def __init__(self) -> None:
        self.ended = False
        self._batches: deque[tuple[Offset, Sequence[Message], int]] = deque()
        self._size = 0
        self._changed = asyncio.Event()

    def add(self, before: Offset, batch: Sequence[Message], size: int) -> None:
        """`before` is what the high watermark was. Too much, and the reader reads for itself."""
        self._size += size
        self._batches.append((before, batch, size))
        if self._size > TAIL_QUEUE_BYTES_MAX:
            self._batches.clear()
            self._size = 0
        self._changed.set()

    def take(self, position: Offset) -> Sequence[Message] | None:
        """What follows on `position`; None if it is not here."""
        while self._batches:
            before, batch, size = self._batches[0]
            if before >= position:
                return None
            self._batches.popleft()
            self._size -= size
            if before == position - 1:
                return batch
            if batch[-1].offset >= position:
                return [message for message in batch if message.offset >= position]
        return None

    def end(self) -> None:
        self.ended = True
        self._changed.set()

    async def wait(self) -> None:
        self._changed.clear()
        if not self.ended:
            await self._changed.wait()
