"""MemoryLog: a SharedLog without a disk or a network, for tests; several stores share one.

It can be slow, full, cut off, lose replies, store late and store twice: each append asks `trouble`
what is to go wrong with it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Sequence
from enum import Enum, auto

from broker.errors import StoreFull
from broker.store.shared.shared_log import Logged, LogInfo, Undecided, begins_later

FOLLOWED_AT_ONCE = 64


class Trouble(Enum):
    NONE = auto()
    CUT_OFF = auto()
    """Nothing is stored, and nobody says so."""
    STORED_LATE = auto()
    """After the next append of anybody, and nobody says so."""
    REPLY_LOST = auto()
    STORED_TWICE = auto()
    FULL = auto()


def no_trouble() -> Trouble:
    return Trouble.NONE


class MemoryLog:
    """See `SharedLog`. A call takes up to `turns` turns of the loop, as `random_` says."""

    def __init__(
        self, log_id: str = "log", *, turns: int = 1, random_: random.Random | None = None
    ) -> None:
        self.log_id = log_id
        self.records: list[bytes] = []
        """Those that were removed are empty."""
        self.oldest = 1
        self.bytes_max: int | None = None
        self.trouble: Callable[[], Trouble] = no_trouble
        self._late: list[bytes] = []
        self._turns = turns
        self._random = random_ or random.Random(0)
        self._changed = asyncio.Event()

    async def open(self) -> LogInfo:
        return await self.info()

    async def info(self) -> LogInfo:
        size = sum(map(len, self.records))
        return LogInfo(self.log_id, len(self.records), self.oldest, size, self.bytes_max)

    async def close(self) -> None:
        pass

    async def append(self, body: bytes) -> int:
        trouble = self.trouble()
        await self._pause()
        if trouble is Trouble.FULL:
            raise StoreFull("no room")
        if trouble is Trouble.CUT_OFF:
            raise Undecided("no answer")
        if trouble is Trouble.STORED_LATE:
            self._late.append(body)
            raise Undecided("no answer")
        position = self.store(body)
        if trouble is Trouble.STORED_TWICE:
            self.store(body)
        await self._pause()
        if trouble is Trouble.REPLY_LOST:
            raise Undecided("no answer")
        return position

    def store(self, body: bytes) -> int:
        """At once; and then what was to be stored late."""
        self.records.append(body)
        position = len(self.records)
        self.records += self._late
        self._late.clear()
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        return position

    async def follow(self, start: int) -> AsyncGenerator[Sequence[Logged], None]:
        position = start
        while True:
            while position > len(self.records):
                await self._changed.wait()
            await self._pause()
            if position < self.oldest:
                raise begins_later(self.oldest, position)
            part = self.records[position - 1 : position - 1 + FOLLOWED_AT_ONCE]
            yield [Logged(at, body) for at, body in enumerate(part, position)]
            position += len(part)

    async def trim(self, before: int) -> None:
        await self._pause()
        removed = range(self.oldest, min(before, len(self.records) + 1))
        self.records[: before - 1] = [b""] * len(self.records[: before - 1])
        self.oldest += len(removed)

    async def _pause(self) -> None:
        for _ in range(self._random.randrange(self._turns) + 1):
            await asyncio.sleep(0)
