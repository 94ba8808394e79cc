"""MemoryStore: the Store contract in the fewest lines, without a disk.

Other stores are compared with it, and tests run the broker on it. Its calls take longer the more it
holds. It keeps its content over `close` and `open`, as a store on a disk does, and loses it with
the process.
"""

from __future__ import annotations

import asyncio
import sys
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from dataclasses import replace
from itertools import count
from typing import Any

from broker.documents import (
    CursorDocument,
    D,
    Document,
    Operation,
    Place,
    SessionDocument,
    SubscriptionDocument,
    fill_in,
)
from broker.errors import StoreUnavailable
from broker.message import Message, Offset, WallUs
from broker.store import PART_MAX, Amount, Read, Skipped, StoreStats, Stretch, TakeAtOnce
from broker.store.memory_documents import Documents, applied, held
from broker.store.removing import (
    OVERHEAD_BYTES,
    SEGMENT,
    ByTopic,
    Order,
    Owed,
    Removed,
    Row,
    Segment,
    amounts,
    as_ranges,
    part_bytes,
    pick,
)
from broker.topics import is_shared, matches


class MemoryStore:
    """See `broker.store.Store`."""

    def __init__(self, *, gaps: int = 0) -> None:
        """`gaps`: offsets left out before each append, as S2 allows."""
        self._gaps = gaps
        self.broker_id = ""
        self._log: list[Message] = []
        self._retained: dict[str, Message] = {}
        self._documents: Documents = {}
        self._high_watermark = Offset(0)
        self._log_start = Offset(1)
        self.missing_before = Offset(1)
        self.removing = MemoryRemoving(self)
        self._is_open = False
        self._changed = asyncio.Event()
        """Set, and replaced by a new one, whenever there is something new for readers of `tail`."""

    @property
    def high_watermark(self) -> Offset:
        return self._high_watermark

    @property
    def log_start(self) -> Offset:
        return self._log_start

    async def open(self) -> None:
        self._is_open = True

    async def close(self) -> None:
        self._is_open = False
        self._wake()

    async def append(
        self,
        batch: Sequence[Message],
        state: Sequence[Operation] = (),
        *,
        durable: bool = True,
        places: Sequence[Place] = (),
    ) -> None:
        self._require_open()
        first = self._high_watermark + 1 + (self._gaps if batch else 0)
        fill_in(state, places, self._high_watermark, first)
        self._documents = applied(self._documents, state)
        for offset, message in enumerate(batch, first):
            self._high_watermark = message.offset = Offset(offset)
            self._log.append(message)
            if message.retain and message.payload:
                self._retained[message.topic] = message
            elif message.retain:
                self._retained.pop(message.topic, None)
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
        while self._is_open:
            if position < self.missing_before:
                skipped = Skipped(position, Offset(self.missing_before - 1))
                position = self.missing_before
                yield skipped
            elif position <= self._high_watermark:
                batch = self._between(position, self._high_watermark)
                position = Offset(self._high_watermark + 1)
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
        self._require_open()
        asked, start = start, max(start, self._log_start)
        end = min(end, self._high_watermark)
        messages: list[Message] = []
        position = Offset(max(start, end + 1))
        for message in _matching(self._between(start, end), filters):
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
        self._require_open()
        wanted = set(offsets)
        messages: list[Message] = []
        for message in self._log:
            if message.offset in wanted and bytes_max > 0:
                messages.append(message)
                bytes_max -= message.size
        last = messages[-1].offset if messages and bytes_max <= 0 else max(offsets, default=0)
        return Read(messages, Offset(last + 1))

    async def offset_at(self, time_us: int) -> Offset:
        self._require_open()
        for message in self._between(self._log_start, self._high_watermark):
            if message.published_at_us >= time_us:
                return message.offset
        return Offset(self._high_watermark + 1)

    async def last_before(self, time_us: int) -> Offset:
        self._require_open()
        last = self._log_start - 1
        for message in self._between(self._log_start, self._high_watermark):
            if message.published_at_us < time_us:
                last = message.offset
        return Offset(last)

    async def nth_last(self, filters: Sequence[str] | None, count: int) -> Offset:
        self._require_open()
        if count <= 0:
            return Offset(self._high_watermark + 1)
        log = self._between(self._log_start, self._high_watermark)
        last = [*_matching(log, filters)][-count:]
        return last[0].offset if len(last) == count else self._log_start

    async def count(
        self, filters: Sequence[str], start: Offset, end: Offset, *, looks_max: int = sys.maxsize
    ) -> tuple[int, Offset]:
        self._require_open()
        start, end = max(start, self._log_start), min(end, self._high_watermark)
        return len(_matching(self._between(start, end), filters)), Offset(max(start, end + 1))

    async def measure(self, stretches: Sequence[Stretch], through: Offset) -> list[Amount]:
        self._require_open()
        amounts = []
        for stretch in stretches:
            after = max(stretch.after, Offset(self._log_start - 1))
            log = self._between(Offset(after + 1), min(through, self._high_watermark))
            amounts.append(_amount([*_matching(log, stretch.filters)]))
        return amounts

    async def amount(self, offsets: Sequence[Offset]) -> Amount:
        self._require_open()
        wanted = Counter(offsets)
        return _amount([m for m in self._log for _ in range(wanted[m.offset])])

    async def retained(self, filters: Sequence[str]) -> list[Offset]:
        self._require_open()
        return sorted([m.offset for m in _matching(self._retained.values(), filters)])

    async def still_retained(self, offsets: Sequence[Offset], now_us: int) -> list[Offset]:
        self._require_open()
        kept = {m.offset for m in self._retained.values() if not m.has_expired(now_us)}
        return sorted(kept & {*offsets})

    async def forget_expired(self, now_us: int) -> None:
        self._require_open()
        kept = {topic: m for topic, m in self._retained.items() if not m.has_expired(now_us)}
        self._retained = kept

    async def get(self, kind: type[D], key: tuple[str, ...]) -> D | None:
        documents = await self.scan(kind, key)
        return documents[0] if documents else None

    async def revision(self, kind: type[Document], key: tuple[str, ...]) -> int:
        self._require_open()
        return self._documents[kind, key][1] if (kind, key) in self._documents else 0

    async def scan(self, kind: type[D], key: tuple[str, ...] = ()) -> list[D]:
        kinds: Any = [kind]
        documents = await self.scan_together(kinds, key)
        return [document for document in documents if isinstance(document, kind)]

    async def scan_together(
        self, kinds: Sequence[type[Document]], key: tuple[str, ...]
    ) -> list[Document]:
        self._require_open()
        found: list[Document] = []
        for kind in kinds:
            keys = sorted(k for of, k in self._documents if of is kind and k[: len(key)] == key)
            found += [replace(self._documents[kind, k][0]) for k in keys]
        return found

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
        self._require_open()
        self._log_start = max(self._log_start, min(before, Offset(self._high_watermark + 1)))
        self.missing_before = self._log_start
        return self.take_out(lambda message: message.offset < self._log_start)

    def take_out(self, unwanted: Callable[[Message], bool]) -> int:
        """Remove these messages, but for what is held; how many."""
        kept = {message.offset for message in self._retained.values()} | held(self._documents)
        before = len(self._log)
        self._log = [m for m in self._log if m.offset in kept or not unwanted(m)]
        self._wake()
        return before - len(self._log)

    async def stats(self) -> StoreStats:
        self._require_open()
        return StoreStats(
            engine="memory",
            high_watermark=self._high_watermark,
            log_start=self._log_start,
            messages=len(self._between(self._log_start, self._high_watermark)),
            retained=len(self._retained),
            bytes_on_disk=0,
        )

    def _between(self, start: Offset, end: Offset) -> list[Message]:
        first = bisect_left(self._log, start, key=lambda message: message.offset)
        last = bisect_left(self._log, end + 1, key=lambda message: message.offset)
        return self._log[first:last]

    def _require_open(self) -> None:
        if not self._is_open:
            raise StoreUnavailable("the store is not open")

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


class MemoryRemoving:
    """See `broker.store.removing.Removing`."""

    def __init__(self, store: MemoryStore) -> None:
        self.keeps_all, self.has_unread = False, True  # Who asks finds out.
        self.unread: dict[Offset, str] = {}
        """Removed unread, and the topic that it had."""
        self._store = store
        self._numbers: dict[str, int] = defaultdict(count(1).__next__)

    def _rows(self, first: Offset, last: Offset) -> list[Row]:
        store = self._store
        held = {message.offset for message in store._retained.values()}
        return [
            Row(m.offset, self._numbers[m.topic], m.size + OVERHEAD_BYTES, m.offset in held)
            for m in store._between(max(first, store._log_start), last)
        ]

    async def segments(self, start: Offset) -> list[Segment]:
        self._store._require_open()
        first = Offset(start // SEGMENT * SEGMENT)
        by_segment: dict[int, list[Row]] = {}
        for row in self._rows(first, self._store._high_watermark):
            by_segment.setdefault(row.offset // SEGMENT, []).append(row)
        found = []
        for number, rows in by_segment.items():
            first, last = Offset(number * SEGMENT), Offset((number + 1) * SEGMENT - 1)
            newest = max(m.published_at_us for m in self._store._between(first, last))
            found.append(Segment(first, last, amounts(rows), newest))
        return found[:8]

    async def counted(self, start: Offset, end: Offset) -> tuple[ByTopic, Offset]:
        first = Offset(start // SEGMENT * SEGMENT)
        return amounts(self._rows(first, Offset(end - 1))), end

    async def topic_names(self, topic_ids: Collection[int]) -> dict[int, str]:
        return {number: name for name, number in self._numbers.items() if number in topic_ids}

    async def remove(self, order: Order, rows_max: int, *, dry_run: bool = False) -> Removed:
        self._store._require_open()
        rows = self._rows(order.first, order.last)
        picked = pick(rows, order, rows_max, part_bytes(dry_run))
        names = await self.topic_names({row.topic_id for row in picked.rows})
        unread = {r.offset: names[r.topic_id] for r in picked.rows if r.offset in picked.unread}
        if not dry_run:
            self.unread |= unread
            gone = {row.offset for row in picked.rows}
            self._store.take_out(lambda m: m.offset in gone)
        return Removed(amounts(picked.rows), [*unread], picked.left, picked.done, picked.below)

    async def advance(self) -> None:
        store = self._store
        rows = self._rows(store._log_start, store._high_watermark)
        kept = [row.offset for row in rows if not row.held]
        store._log_start = min(kept, default=Offset(store._high_watermark + 1))

    async def remove_released(self) -> int:
        return self._store.take_out(lambda message: message.offset < self._store._log_start)

    async def forget_unread(self, before: Offset) -> None:
        self.unread = {offset: name for offset, name in self.unread.items() if offset >= before}

    async def forget_names(self) -> int:
        used = {message.topic for message in self._store._log} | {*self.unread.values()}
        unused = self._numbers.keys() - used
        return len([self._numbers.pop(name) for name in unused])

    async def free_bytes(self) -> int:
        return 0

    async def owed(self, after: tuple[str, str]) -> tuple[list[Owed], tuple[str, str] | None]:
        found = []
        for subscription in await self._store.scan(SubscriptionDocument):
            name = subscription.client_id
            cursor = await self._store.get(CursorDocument, (name,))
            acknowledged = 0 if cursor is None or subscription.replaying else cursor.offset
            start = max(subscription.start_offset, acknowledged)
            if not is_shared(subscription.filter) and (name, subscription.filter) > after:
                lists = cursor is not None and cursor.inflight != b""
                found.append(Owed(name, subscription.filter, Offset(start + 1), lists))
        return found, None


def _matching(messages: Collection[Message], filters: Sequence[str] | None) -> Collection[Message]:
    if filters is None:
        return messages
    topics = {message.topic for message in messages}
    wanted = {topic for topic in topics if any(matches(filter, topic) for filter in filters)}
    return [message for message in messages if message.topic in wanted]


def _amount(messages: Sequence[Message]) -> Amount:
    oldest_at_us = WallUs(messages[0].published_at_us) if messages else None
    return Amount(len(messages), sum([message.size for message in messages]), oldest_at_us)
