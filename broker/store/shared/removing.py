"""CopyRemoving: retention at one broker of several, see `broker.store.removing`.

It removes messages from this broker's copy, and from no other: each keeps what it is told to. What
is unread is known of the sessions of all brokers, as all have their documents.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection

from broker.message import Offset
from broker.store import Store
from broker.store.removing import ByTopic, Order, Owed, Removed, Segment


class CopyRemoving:
    def __init__(self, copy: Store, current: Callable[[], Awaitable[None]]) -> None:
        self._copy = copy
        self._current = current

    @property
    def keeps_all(self) -> bool:
        return self._copy.removing.keeps_all

    @property
    def has_unread(self) -> bool:
        return self._copy.removing.has_unread

    async def segments(self, start: Offset) -> list[Segment]:
        await self._current()
        return await self._copy.removing.segments(start)

    async def counted(self, start: Offset, end: Offset) -> tuple[ByTopic, Offset]:
        await self._current()
        return await self._copy.removing.counted(start, end)

    async def topic_names(self, topic_ids: Collection[int]) -> dict[int, str]:
        await self._current()
        return await self._copy.removing.topic_names(topic_ids)

    async def remove(self, order: Order, rows_max: int, *, dry_run: bool = False) -> Removed:
        await self._current()
        return await self._copy.removing.remove(order, rows_max, dry_run=dry_run)

    async def advance(self) -> None:
        await self._current()
        await self._copy.removing.advance()

    async def remove_released(self) -> int:
        await self._current()
        return await self._copy.removing.remove_released()

    async def forget_unread(self, before: Offset) -> None:
        await self._current()
        await self._copy.removing.forget_unread(before)

    async def forget_names(self) -> int:
        await self._current()
        return await self._copy.removing.forget_names()

    async def keep_spare(self) -> None:
        await self._copy.removing.keep_spare()

    async def free_bytes(self) -> int:
        await self._current()
        return await self._copy.removing.free_bytes()

    async def owed(self, after: tuple[str, str]) -> tuple[list[Owed], tuple[str, str] | None]:
        await self._current()
        return await self._copy.removing.owed(after)
