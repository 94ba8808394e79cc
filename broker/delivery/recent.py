"""The newest batches that were routed, in memory: so a reader a little behind can close up with a
fast publisher and does not ask the disk for what was just written."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from broker.delivery import readers
from broker.message import Message, Offset

RECENT_MESSAGES_MAX = 20_000
RECENT_BYTES_MAX = 8 * 1024 * 1024


class Recent:
    """The newest routed batches: everything above `after`, up to a number and a size."""

    def __init__(self, after: Offset) -> None:
        self.after = after
        self._batches: deque[tuple[Sequence[Message], int]] = deque()
        """With the size of each."""
        self._messages = 0
        self._bytes = 0

    def add(self, batch: Sequence[Message], size: int) -> None:
        """`size` is the `cost_of` the batch."""
        self._batches.append((batch, size))
        self._messages += len(batch)
        self._bytes += size
        while self._messages > RECENT_MESSAGES_MAX or self._bytes > RECENT_BYTES_MAX:
            oldest, oldest_size = self._batches.popleft()
            self._messages -= len(oldest)
            self._bytes -= oldest_size
            self.after = oldest[-1].offset

    def read(self, after: Offset) -> tuple[list[Message], Offset]:
        """About a read's worth of messages above `after`, and how far that goes."""
        messages: list[Message] = []
        through = after
        size = 0
        for batch, batch_size in self._batches:
            if batch[-1].offset <= after:
                continue
            if batch[0].offset > after:
                messages += batch
            else:
                messages += [message for message in batch if message.offset > after]
            through = batch[-1].offset
            size += batch_size
            if len(messages) >= readers.READ_MESSAGES_MAX or size >= readers.READ_BYTES_MAX:
                break
        return messages, through
