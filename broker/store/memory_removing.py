"""MemoryRemoving: what MemoryStore does for retention. (S11)"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from itertools import count

from broker.documents import CursorDocument, SubscriptionDocument
from broker.message import Offset
from broker.store.memory_content import MemoryContent
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
    part_bytes,
    pick,
)
from broker.topics import is_shared


class MemoryRemoving:
    """See `broker.store.removing.Removing`."""

    def __init__(self, content: MemoryContent) -> None:
        self.keeps_all, self.has_unread = False, True  # Who asks finds out.
        self.unread: dict[Offset, str] = {}
        """Removed unread, and the topic that it had."""
        self._content = content
        self._numbers: dict[str, int] = defaultdict(count(1).__next__)

    def _rows(self, first: Offset, last: Offset) -> list[Row]:
        content = self._content
        held = {message.offset for message in content.retained.values()}
        return [
            Row(m.offset, self._numbers[m.topic], m.size + OVERHEAD_BYTES, m.offset in held)
            for m in content.between(max(first, content.log_start), last)
        ]

    async def segments(self, start: Offset) -> list[Segment]:
        self._content.require_open()
        first = Offset(start // SEGMENT * SEGMENT)
        by_segment: dict[int, list[Row]] = {}
        for row in self._rows(first, self._content.high_watermark):
            by_segment.setdefault(row.offset // SEGMENT, []).append(row)
        found = []
        for number, rows in by_segment.items():
            first, last = Offset(number * SEGMENT), Offset((number + 1) * SEGMENT - 1)
            newest = max(m.published_at_us for m in self._content.between(first, last))
            found.append(Segment(first, last, amounts(rows), newest))
        return found[:8]

    async def counted(self, start: Offset, end: Offset) -> tuple[ByTopic, Offset]:
        first = Offset(start // SEGMENT * SEGMENT)
        return amounts(self._rows(first, Offset(end - 1))), end

    async def topic_names(self, topic_ids: Collection[int]) -> dict[int, str]:
        return {number: name for name, number in self._numbers.items() if number in topic_ids}

    async def remove(self, order: Order, rows_max: int, *, dry_run: bool = False) -> Removed:
        self._content.require_open()
        rows = self._rows(order.first, order.last)
        picked = pick(rows, order, rows_max, part_bytes(dry_run))
        names = await self.topic_names({row.topic_id for row in picked.rows})
        unread = {r.offset: names[r.topic_id] for r in picked.rows if r.offset in picked.unread}
        if not dry_run:
            self.unread |= unread
            gone = {row.offset for row in picked.rows}
            self._content.take_out(lambda m: m.offset in gone)
        return Removed(amounts(picked.rows), [*unread], picked.left, picked.done, picked.below)

    async def advance(self) -> None:
        content = self._content
        rows = self._rows(content.log_start, content.high_watermark)
        kept = [row.offset for row in rows if not row.held]
        content.log_start = min(kept, default=Offset(content.high_watermark + 1))

    async def remove_released(self) -> int:
        return self._content.take_out(lambda message: message.offset < self._content.log_start)

    async def forget_unread(self, before: Offset) -> None:
        self.unread = {offset: name for offset, name in self.unread.items() if offset >= before}

    async def forget_names(self) -> int:
        used = {message.topic for message in self._content.log} | {*self.unread.values()}
        unused = self._numbers.keys() - used
        return len([self._numbers.pop(name) for name in unused])

    async def keep_spare(self) -> None: ...

    async def free_bytes(self) -> int:
        return 0

    async def owed(self, after: tuple[str, str]) -> tuple[list[Owed], tuple[str, str] | None]:
        found = []
        cursors = {cursor.client_id: cursor for cursor in self._content.scan(CursorDocument)}
        for subscription in self._content.scan(SubscriptionDocument):
            name = subscription.client_id
            cursor = cursors.get(name)
            acknowledged = 0 if cursor is None or subscription.replaying else cursor.offset
            start = max(subscription.start_offset, acknowledged)
            if not is_shared(subscription.filter) and (name, subscription.filter) > after:
                lists = cursor is not None and cursor.inflight != b""
                found.append(Owed(name, subscription.filter, Offset(start + 1), lists))
        return found, None
