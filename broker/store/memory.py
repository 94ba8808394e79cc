"""MemoryStore: the Store contract in the fewest lines, without a disk.

Other stores are compared with it, and tests run the broker on it. Its calls take longer the more it
holds. It keeps its content over `close` and `open`, as a store on a disk does, and loses it with
the process.
"""

from __future__ import annotations

import asyncio
import sys
from bisect import bisect_right
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Sequence

from broker.documents import D, Document, Operation, Place, SessionDocument, SubscriptionDocument
from broker.message import Message, Offset, WallUs
from broker.store import PART_MAX, Amount, Read, Skipped, StoreStats, Stretch, TakeAtOnce
from broker.store.memory_content import MemoryContent
from broker.store.memory_removing import MemoryRemoving
from broker.store.removing import as_ranges
from broker.topics import matches


class MemoryStore:
    """See `broker.store.Store`."""

    def __init__(self, *, gaps: int = 0) -> None:
        """`gaps`: offsets left out before each append, as S2 allows."""
        self.broker_id = ""
        self.content = MemoryContent(gaps)
        self.missing_before = Offset(1)
        self.removing = MemoryRemoving(self.content)
        self._changed = asyncio.Event()
        """Set, and replaced by a new one, whenever there is something new for readers of `tail`."""

    @property
    def high_watermark(self) -> Offset:
        return self.content.high_watermark

    @property
    def log_start(self) -> Offset:
        return self.content.log_start

    async def open(self) -> None:
        self.content.is_open = True

    async def close(self) -> None:
        self.content.is_open = False
        self._wake()

    async def append(
        self,
        batch: Sequence[Message],
        state: Sequence[Operation] = (),
        *,
        durable: bool = True,
        places: Sequence[Place] = (),
    ) -> None:
        self.content.require_open()
        self.content.append(batch, state, places)
        self._wake()

    def append_now(
        self,
        batch: Sequence[Message],
        state: Sequence[Operation],
        *,
        durable: bool,
        places: Sequence[Place],
        committed: Callable[[], None],
    ) -> bool:
        """Never: so tests of what waits for a commit need no disk."""
        return False

    async def transact(self, operations: Sequence[Operation]) -> None:
        await self.append((), operations)

    async def tail(
        self, start: Offset, take: TakeAtOnce | None = None
    ) -> AsyncIterator[Sequence[Message] | Skipped]:
        """Ends when the store is closed."""
        position = start
        while self.content.is_open:
            if position < self.missing_before:
                skipped = Skipped(position, Offset(self.missing_before - 1))
                position = self.missing_before
                yield skipped
            elif position <= self.high_watermark:
                batch = self.content.between(position, self.high_watermark)
                position = Offset(self.high_watermark + 1)
                yield batch
            else:
                await self._changed.wait()

    async def read(
        self,
        start: Offset,
        end: Offset,
        filters: Sequence[str] | None = None,
        *,
        limit: int = 1000,
        bytes_max: int = 1 << 20,
    ) -> Read:
        self.content.require_open()
        asked, start = start, max(start, self.log_start)
        end = min(end, self.high_watermark)
        messages: list[Message] = []
        position = Offset(max(start, end + 1))
        for message in _matching(self.content.between(start, end), filters):
            messages.append(message)
            bytes_max -= message.size
            if len(messages) >= limit or bytes_max <= 0:
                position = Offset(message.offset + 1)
                break
        gone = self.removing.unread.items()
        unread = [
            offset
            for offset, topic in sorted(gone)
            if asked <= offset < position
            and (filters is None or any(matches(filter, topic) for filter in filters))
        ]
        return Read(messages, position, removed=as_ranges(unread))

    async def fetch(self, offsets: Sequence[Offset], *, bytes_max: int = sys.maxsize) -> Read:
        self.content.require_open()
        wanted = set(offsets)
        messages: list[Message] = []
        for message in self.content.log:
            if message.offset in wanted and bytes_max > 0:
                messages.append(message)
                bytes_max -= message.size
        last = messages[-1].offset if messages and bytes_max <= 0 else max(offsets, default=0)
        return Read(messages, Offset(last + 1))

    async def offset_at(self, time_us: int) -> Offset:
        self.content.require_open()
        for message in self.content.between(self.log_start, self.high_watermark):
            if message.published_at_us >= time_us:
                return message.offset
        return Offset(self.high_watermark + 1)

    async def last_before(self, time_us: int) -> Offset:
        self.content.require_open()
        last = self.log_start - 1
        for message in self.content.between(self.log_start, self.high_watermark):
            if message.published_at_us < time_us:
                last = message.offset
        return Offset(last)

    async def nth_last(self, filters: Sequence[str] | None, count: int) -> Offset:
        self.content.require_open()
        if count <= 0:
            return Offset(self.high_watermark + 1)
        log = self.content.between(self.log_start, self.high_watermark)
        last = [*_matching(log, filters)][-count:]
        return last[0].offset if len(last) == count else self.log_start

    async def count(
        self, filters: Sequence[str], start: Offset, end: Offset, *, looks_max: int = sys.maxsize
    ) -> tuple[int, Offset]:
        self.content.require_open()
        start, end = max(start, self.log_start), min(end, self.high_watermark)
        return len(_matching(self.content.between(start, end), filters)), Offset(
            max(start, end + 1)
        )

    async def measure(self, stretches: Sequence[Stretch], through: Offset) -> list[Amount]:
        self.content.require_open()
        amounts = []
        for stretch in stretches:
            after = max(stretch.after, Offset(self.log_start - 1))
            log = self.content.between(Offset(after + 1), min(through, self.high_watermark))
            amounts.append(_amount([*_matching(log, stretch.filters)]))
        return amounts

    async def amount(self, offsets: Sequence[Offset]) -> Amount:
        self.content.require_open()
        wanted = Counter(offsets)
        return _amount([m for m in self.content.log for _ in range(wanted[m.offset])])

    async def retained(self, filters: Sequence[str]) -> list[Offset]:
        self.content.require_open()
        return sorted([m.offset for m in _matching(self.content.retained.values(), filters)])

    async def still_retained(self, offsets: Sequence[Offset], now_us: int) -> list[Offset]:
        self.content.require_open()
        kept = {m.offset for m in self.content.retained.values() if not m.has_expired(now_us)}
        return sorted(kept & {*offsets})

    async def forget_expired(self, now_us: int) -> None:
        self.content.require_open()
        kept = {topic: m for topic, m in self.content.retained.items() if not m.has_expired(now_us)}
        self.content.retained = kept

    async def get(self, kind: type[D], key: tuple[str, ...]) -> D | None:
        documents = await self.scan(kind, key)
        return documents[0] if documents else None

    async def revision(self, kind: type[Document], key: tuple[str, ...]) -> int:
        self.content.require_open()
        return self.content.documents[kind, key][1] if (kind, key) in self.content.documents else 0

    async def scan(self, kind: type[D], key: tuple[str, ...] = ()) -> list[D]:
        self.content.require_open()
        return self.content.scan(kind, key)

    async def scan_together(
        self, kinds: Sequence[type[Document]], key: tuple[str, ...]
    ) -> list[Document]:
        self.content.require_open()
        return [document for kind in kinds for document in self.content.scan(kind, key)]

    async def scan_part(
        self, kind: type[D], key: tuple[str, ...] = (), after: Sequence[str | int] | None = None
    ) -> list[D]:
        documents = await self.scan(kind, key)
        keys = [tuple(getattr(document, name) for name in kind.KEY) for document in documents]
        begin = 0 if after is None else bisect_right(keys, tuple(after))
        return documents[begin : begin + PART_MAX]

    async def without_subscriber(self, names: Sequence[str]) -> list[SessionDocument]:
        subscribed = {subscription.filter for subscription in await self.scan(SubscriptionDocument)}
        found = [await self.get(SessionDocument, (name,)) for name in {*names} - subscribed]
        return [document for document in found if document is not None]

    async def trim(self, before: Offset) -> int:
        self.content.require_open()
        content = self.content
        content.log_start = max(content.log_start, min(before, Offset(self.high_watermark + 1)))
        self.missing_before = self.log_start
        gone = content.take_out(lambda message: message.offset < content.log_start)
        self._wake()
        return gone

    async def stats(self) -> StoreStats:
        self.content.require_open()
        return StoreStats(
            engine="memory",
            high_watermark=self.high_watermark,
            log_start=self.log_start,
            messages=len(self.content.between(self.log_start, self.high_watermark)),
            retained=len(self.content.retained),
            bytes_on_disk=0,
        )

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


def _matching(messages: Collection[Message], filters: Sequence[str] | None) -> Collection[Message]:
    if filters is None:
        return messages
    topics = {message.topic for message in messages}
    wanted = {topic for topic in topics if any(matches(filter, topic) for filter in filters)}
    return [message for message in messages if message.topic in wanted]


def _amount(messages: Sequence[Message]) -> Amount:
    oldest_at_us = WallUs(messages[0].published_at_us) if messages else None
    return Amount(len(messages), sum([message.size for message in messages]), oldest_at_us)
