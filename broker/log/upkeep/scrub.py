"""Scrub: reads the whole log slowly, once a day, so that damage is found before somebody needs it.

The store verifies what it reads, and tells what is damaged once (S8). Here is only the pace: small
reads, and after each as long a pause as its bytes may take. So no snapshot is held, and the disk
and the readers have little work with it. Retained messages below the log start come last (but those
on topics that begin with `$`).
"""

from __future__ import annotations

import logging
from array import array
from bisect import bisect_left

from broker.clock import Clock
from broker.errors import StoreError
from broker.message import Message, Offset
from broker.store import Store

READ_MESSAGES_MAX = 64
READ_BYTES_MAX = 64 * 1024
MESSAGE_BYTES = 100
"""What a message takes beside payload and properties, about."""
FIRST_ROUND_S = 60.0
"""After the start: a broker that has just come up has other work."""
REST_S = 86_400.0
"""Between two rounds."""

logger = logging.getLogger(__name__)


class Scrub:
    def __init__(self, store: Store, clock: Clock, *, bytes_per_s: int) -> None:
        self.rounds = 0
        """How many are over."""
        self.offset = Offset(0)
        """How far the present round has come, or the last one came."""
        self._store = store
        self._clock = clock
        self._bytes_per_s = bytes_per_s

    async def run_forever(self) -> None:
        """Round after round, until cancelled."""
        await self._clock.sleep(FIRST_ROUND_S)
        while True:
            try:
                await self._round()
            except StoreError as error:
                logger.warning("the log was scrubbed to offset %d only: %s", self.offset, error)
            else:
                self.rounds += 1
            await self._clock.sleep(REST_S)

    async def _round(self) -> None:
        """From the log start to the high watermark of now. Raises StoreError."""
        store = self._store
        start, end = store.log_start, store.high_watermark
        position = start
        while position <= end:
            read = await store.read(
                position, end, limit=READ_MESSAGES_MAX, bytes_max=READ_BYTES_MAX
            )
            position = read.next
            self.offset = Offset(min(position - 1, end))
            await self._pause(read.messages)
        retained = await store.retained(["#"])
        older = array("q", [offset for offset in retained if offset < start])
        done = 0
        while done < len(older):
            part = [Offset(offset) for offset in older[done : done + READ_MESSAGES_MAX]]
            read = await store.fetch(part, bytes_max=READ_BYTES_MAX)
            done = bisect_left(older, read.next)
            await self._pause(read.messages)

    async def _pause(self, read: list[Message]) -> None:
        size = MESSAGE_BYTES + sum([message.size + MESSAGE_BYTES for message in read])
        await self._clock.sleep(size / self._bytes_per_s)
