"""Tail: the queue of committed batches between a store and one reader of its `tail`.

A reader that keeps up gets each batch from memory; one that does not reads from the database.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from broker.message import Message, Offset
from broker.store import TakeAtOnce

TAIL_QUEUE_BYTES_MAX = 32 << 20
"""Bytes of the batches in one queue, 200 more for each message. A queue that grows beyond this is
emptied but for the newest batch, and its reader reads the others from the database."""


class Tail:
    """The batches that one reader has not taken yet; it forgets them when they are too many."""

    def __init__(self, take: TakeAtOnce | None = None) -> None:
        self.ended = False
        self._take = take
        self._awaited: Offset | None = None
        """The position from which on the reader waits for messages; None: it does not wait."""
        self._batches: deque[tuple[Offset, Sequence[Message], int]] = deque()
        self._size = 0
        self._changed = asyncio.Event()

    def add(self, before: Offset, batch: Sequence[Message], size: int) -> None:
        """`before` is the high watermark before this batch."""
        if self._size + size > TAIL_QUEUE_BYTES_MAX:
            self._batches.clear()
            self._size = 0
        self._size += size
        self._batches.append((before, batch, size))
        self._changed.set()

    def hand_on(self, before: Offset, batch: Sequence[Message], size: int) -> None:
        """As `add`; but if the reader waits for these, it may take them at once."""
        if self._take is None or self._awaited != before + 1 or not self._take(batch):
            self.add(before, batch, size)
        else:
            self._awaited = Offset(batch[-1].offset + 1)

    def take(self, position: Offset) -> Sequence[Message] | None:
        """The messages from `position` on; None if they are not here."""
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

    async def wait(self, position: Offset) -> Offset:
        """Return when there is something to take from `position` on, or from a later one: what was
        before that has been taken at once."""
        self._changed.clear()
        self._awaited = position
        try:
            if not self.ended:
                await self._changed.wait()
            return self._awaited
        finally:
            self._awaited = None
