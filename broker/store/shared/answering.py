"""AnsweredByCopy: what a store that several brokers share is asked, and its copy answers.

A read waits until the copy has what was appended here before.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

from broker.documents import D, Document, Key, SessionDocument
from broker.message import Message, Offset
from broker.store import Amount, Read, Skipped, Store, StoreStats, Stretch, TakeAtOnce


class AnsweredByCopy(ABC):
    """See `broker.store.Store`."""

    def __init__(self, copy: Store) -> None:
        self.copy = copy

    @abstractmethod
    async def current(self) -> None:
        """Return when the copy has what was appended here before. Raises StoreError."""

    @property
    def log_start(self) -> Offset:
        return self.copy.log_start

    @property
    def missing_before(self) -> Offset:
        return self.copy.missing_before

    def tail(
        self, start: Offset, take: TakeAtOnce | None = None
    ) -> AsyncIterator[Sequence[Message] | Skipped]:
        return self.copy.tail(start, take)

    async def read(
        self,
        start: Offset,
        end: Offset,
        filters: Sequence[str] | None = None,
        *,
        limit: int = 1000,
        bytes_max: int = 1 << 20,
    ) -> Read:
        await self.current()
        return await self.copy.read(start, end, filters, limit=limit, bytes_max=bytes_max)

    async def fetch(self, offsets: Sequence[Offset], *, bytes_max: int = sys.maxsize) -> Read:
        await self.current()
        return await self.copy.fetch(offsets, bytes_max=bytes_max)

    async def offset_at(self, time_us: int) -> Offset:
        await self.current()
        return await self.copy.offset_at(time_us)

    async def last_before(self, time_us: int) -> Offset:
        await self.current()
        return await self.copy.last_before(time_us)

    async def nth_last(self, filters: Sequence[str] | None, count: int) -> Offset:
        await self.current()
        return await self.copy.nth_last(filters, count)

    async def count(
        self, filters: Sequence[str], start: Offset, end: Offset, *, looks_max: int = sys.maxsize
    ) -> tuple[int, Offset]:
        await self.current()
        return await self.copy.count(filters, start, end, looks_max=looks_max)

    async def measure(self, stretches: Sequence[Stretch], through: Offset) -> list[Amount]:
        await self.current()
        return await self.copy.measure(stretches, through)

    async def amount(self, offsets: Sequence[Offset]) -> Amount:
        await self.current()
        return await self.copy.amount(offsets)

    async def retained(self, filters: Sequence[str]) -> list[Offset]:
        await self.current()
        return await self.copy.retained(filters)

    async def still_retained(self, offsets: Sequence[Offset], now_us: int) -> list[Offset]:
        await self.current()
        return await self.copy.still_retained(offsets, now_us)

    async def forget_expired(self, now_us: int) -> None:
        await self.current()
        await self.copy.forget_expired(now_us)

    async def get(self, kind: type[D], key: tuple[str, ...]) -> D | None:
        await self.current()
        return await self.copy.get(kind, key)

    async def revision(self, kind: type[Document], key: tuple[str, ...]) -> int:
        await self.current()
        return await self.copy.revision(kind, key)

    async def scan(self, kind: type[D], key: tuple[str, ...] = ()) -> list[D]:
        await self.current()
        return await self.copy.scan(kind, key)

    async def scan_part(
        self, kind: type[D], key: tuple[str, ...] = (), after: Key | None = None
    ) -> list[D]:
        await self.current()
        return await self.copy.scan_part(kind, key, after)

    async def scan_together(
        self, kinds: Sequence[type[Document]], key: tuple[str, ...]
    ) -> list[Document]:
        await self.current()
        return await self.copy.scan_together(kinds, key)

    async def without_subscriber(self, names: Sequence[str]) -> list[SessionDocument]:
        await self.current()
        return await self.copy.without_subscriber(names)

    async def trim(self, before: Offset) -> int:
        await self.current()
        return await self.copy.trim(before)

    async def stats(self) -> StoreStats:
        await self.current()
        stats = await self.copy.stats()
        return replace(stats, engine=f"shared log, copy in {stats.engine}")
