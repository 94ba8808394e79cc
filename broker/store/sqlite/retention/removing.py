"""SqliteRemoving: what SqliteStore does for retention.

A connection for reading finds what is to go (`removable.py`), and the writer's thread removes it
(`trimming.py`) between two commits.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from typing import Concatenate, ParamSpec, TypeVar

from broker.errors import StoreFull
from broker.message import Offset
from broker.store import Read
from broker.store.removing import ByTopic, Order, Owed, Removed, Segment, amounts, part_bytes
from broker.store.sqlite.files import spare
from broker.store.sqlite.files.checkpoint import Checkpoints
from broker.store.sqlite.lanes import Lanes
from broker.store.sqlite.retention import removable, unread
from broker.store.sqlite.retention.trimming import Trimming
from broker.store.sqlite.searching.search import TopicFilters
from broker.store.sqlite.thread import ConnectionThread
from broker.store.sqlite.writer import Writer

P = ParamSpec("P")
T = TypeVar("T")
logger = logging.getLogger(__name__)


class SqliteRemoving:
    """See `broker.store.removing.Removing`."""

    def __init__(
        self, thread: ConnectionThread, writer: Writer, lanes: Lanes, checkpoints: Checkpoints
    ) -> None:
        self.log_start = writer.log_start
        self.missing_before = writer.missing_before
        self.keeps_all = writer.keeps_all
        self.has_unread = writer.has_unread
        """Whether something was removed unread, and there may still be somebody to be told."""
        self._told = set[int]()
        """Blocks of which it was said that this is damaged."""
        self._path = writer.path
        self._thread = thread
        self._writer = writer
        self._trimming = Trimming(writer)
        self._lanes = lanes
        self._checkpoints = checkpoints

    async def _look(
        self,
        look: Callable[Concatenate[sqlite3.Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        return await self._lanes.messages(lambda reader: reader.ask(look, *args, **kwargs))

    async def segments(self, start: Offset) -> list[Segment]:
        position: Offset | None = max(start, self.log_start)
        while position is not None:
            found, position = await self._look(removable.segments, position)
            if found:
                return found
        return []

    async def counted(self, start: Offset, end: Offset) -> tuple[ByTopic, Offset]:
        return await self._look(removable.counted, max(start, self.log_start), end)

    async def topic_names(self, topic_ids: Collection[int]) -> dict[int, str]:
        return await self._look(removable.topic_names, topic_ids)

    async def remove(self, order: Order, rows_max: int, *, dry_run: bool = False) -> Removed:
        picked = await self._look(removable.choose, order, rows_max, part_bytes(dry_run))
        done, rows, took_s = picked.done, picked.rows, 0.0
        unread = [row.offset for row in rows if row.offset in picked.unread]
        if rows and not dry_run:
            offsets = [row.offset for row in rows]
            self.has_unread = self.has_unread or bool(unread)
            rows, unread, took_s = await self._write(self._trimming.take_out, offsets, unread)
            self._checkpoints.start_if_due()
            done = done or not rows  # What is held by now stays, and must not be tried for ever.
        below = min(picked.below, len(rows))
        return Removed(amounts(rows), unread, picked.left, done, below, took_s)

    async def _write(self, change: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """On a full disk it needs room in the write-ahead log: what that holds is copied first, for
        which the spare file makes room."""
        try:
            return await self._thread.run(change, *args, **kwargs)
        except StoreFull:
            await self._checkpoints.make_room()
        try:
            return await self._thread.run(change, *args, **kwargs)
        except StoreFull:
            if not await asyncio.to_thread(spare.give_up, self._path):
                raise
            logger.warning("%s is given up, as the disk is full", spare.spare_file(self._path).name)
            await self._checkpoints.make_room()
            return await self._thread.run(change, *args, **kwargs)

    async def trim(self, before: Offset) -> int:
        """As `Store.trim`; `before` is at most right above the high watermark."""
        if before > self.log_start:
            await self._write(self._trimming.move_log_start, before)
            self.log_start = self.missing_before = before
        return await self.remove_released()

    async def remove_released(self) -> int:
        removed = position = 0
        while position < self.log_start:
            gone, position = await self._write(self._trimming.trim_some, self.log_start, position)
            removed += gone
            self._checkpoints.start_if_due()
        return removed

    async def advance(self) -> None:
        more = True
        while more:
            more = await self._write(self._trimming.advance_some)
            self.log_start = self._writer.log_start
            self._checkpoints.start_if_due()

    async def tell_unread(self, start: Offset, read: Read, filters: Sequence[str]) -> None:
        """Name in what was read from `start` on what was removed unread. If that is much, what was
        read ends sooner. Called afterwards: nothing is removed in between that nobody hears of."""
        wanted = TopicFilters(filters)
        read.removed, stop = await self._look(unread.between, start, read.next, wanted, self._told)
        if stop < read.next:
            read.next = stop
            read.messages = [message for message in read.messages if message.offset < stop]
            damaged = [range(part.start, min(part.stop, stop)) for part in read.damaged]
            read.damaged = [part for part in damaged if part]

    async def forget_unread(self, before: Offset) -> None:
        self.has_unread = await self._write(self._trimming.forget_unread, before)

    async def forget_names(self) -> int:
        names = removable.NamesInUse()
        while await self._look(names.part):
            pass
        forgotten = 0
        for table in ("topics", "publishers"):
            after: int | None = 0
            while after is not None:
                unused, after = await self._look(names.unused, table, after)
                if unused:
                    ids = (unused, []) if table == "topics" else ([], unused)
                    forgotten += await self._write(self._trimming.forget_names, *ids, names.since)
                    self._checkpoints.start_if_due()
        return forgotten

    async def keep_spare(self) -> None:
        with suppress(OSError):  # No room for it either.
            await asyncio.to_thread(spare.keep, self._path)

    async def free_bytes(self) -> int:
        return await self._look(removable.free_bytes)

    async def owed(self, after: tuple[str, str]) -> tuple[list[Owed], tuple[str, str] | None]:
        return await self._look(removable.owed, after)
