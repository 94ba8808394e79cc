"""SqliteStore: the log and its documents in one SQLite database, and nothing else on the disk.

- One connection, in its own thread, does all writes (`writer.py`), and those parts of a checkpoint
  that may not be beside a commit; the rest has a thread of its own (`checkpoint.py`). Reads go to
  read-only connections with threads of their own (`reader.py`) and never wait for a commit.
- An append is one hop to the writer's thread and one transaction there. `append_now` makes a small
  one in the event loop's thread instead where the disk is quick (`in_loop.py`) and the writer's
  thread is idle: only one thread uses the connection at any time.
- The event loop learns in one way that a commit is durable: `append` goes on. It hands the batch to
  the readers of `tail` and returns, without an await between. So its caller, who acknowledges, goes
  on before any of the readers.
- WAL with `synchronous = FULL`: COMMIT returns when the write-ahead log is fsynced. A commit that
  needs no fsync (`durable=False`, or `durability = "os"`) survives a kill, but not a power cut: the
  newest of them may be lost then, though subscribers have seen their offsets. So `open` leaves a
  gap after any unclean stop (S2).
- The database file and the files beside it belong to the one broker that runs on it.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from time import perf_counter
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from broker import tasks
from broker.documents import D, Document, Key, Operation, Place, SessionDocument, fill_in
from broker.errors import StoreBusy, StoreCorrupt, StoreError, StoreFull, StoreUnavailable
from broker.message import Message, Offset
from broker.store import Amount, Read, Skipped, StoreStats, Stretch, TakeAtOnce
from broker.store.sqlite.files import opening
from broker.store.sqlite.files.checkpoint import Checkpoints
from broker.store.sqlite.files.file import DatabaseFile, bytes_on_disk
from broker.store.sqlite.in_loop import SMALL_MAX, InLoop, is_small
from broker.store.sqlite.lanes import Lanes
from broker.store.sqlite.reader import Reader
from broker.store.sqlite.repair.damaged import Damage
from broker.store.sqlite.repair.hidden import Hidden
from broker.store.sqlite.retention.removing import SqliteRemoving
from broker.store.sqlite.searching.search import in_order
from broker.store.sqlite.searching.when import FirstAt, LastBefore, When
from broker.store.sqlite.tables import SELECTED_AT_ONCE_MAX, key_of
from broker.store.sqlite.thread import ConnectionThread
from broker.store.sqlite.writer import Writer
from broker.store.tail import Tail

LOOK_WAIT_S = 0.05
"""How long the first search for what is retained waits for the look at its tables."""

P = ParamSpec("P")
T = TypeVar("T")

logger = logging.getLogger(__name__)


class SqliteStore:
    """See `broker.store.Store`."""

    def __init__(
        self,
        path: Path,
        *,
        durability: str = "fsync",
        accept_loss: bool = False,
        is_copy: bool = False,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`durability="os"`: no commit is fsynced, but for one in half a million messages.
        `accept_loss`: open also what an unclean stop left damaged, see `recovery`. `is_copy`: what
        an unclean stop lost is appended again, at the same offsets."""
        self.path = path
        self.sqlite_version = sqlite3.sqlite_version
        self._fsync = durability == "fsync"
        self._accept_loss = accept_loss
        self.broker_id = ""
        self._is_copy = is_copy
        self._file: DatabaseFile
        self._is_open = False
        self._thread: ConnectionThread
        self._writer: Writer
        self._high_watermark = Offset(0)
        self.removing: SqliteRemoving
        self._damage, self._hidden = Damage(), Hidden()
        self._lanes = Lanes(path, self._damage)
        self._tails: set[Tail] = set()
        self._checkpoints: Checkpoints
        self._looking: asyncio.Task[None] | None = None
        self._in_loop = InLoop(monotonic)

    @property
    def high_watermark(self) -> Offset:
        return self._high_watermark

    @property
    def log_start(self) -> Offset:
        return self.removing.log_start if self._is_open else Offset(1)

    @property
    def missing_before(self) -> Offset:
        return self.removing.missing_before

    @property
    def damaged_offsets(self) -> int:
        """How many offsets are known to be unreadable, of those looked at since it was opened."""
        return self._damage.offsets + len(self._hidden.lost)

    async def open(self) -> None:
        self._hidden, self._looking = Hidden(), None
        self._file = DatabaseFile(self.path)
        try:
            self._thread, self._writer = await opening.open_writer(
                self._file, self._damage, accept_loss=self._accept_loss, is_copy=self._is_copy
            )
            try:
                await self._lanes.open(self._file)
                self._checkpoints = await Checkpoints.open(self._thread, self._writer, self._file)
            except BaseException:
                await self._lanes.close()
                await self._thread.close()
                self._writer.connection_closed()
                raise
        except StoreCorrupt as error:
            failure = await self._file.failure_behind(error) or error
            self._file.close()
            raise failure from error.__cause__
        except BaseException:
            self._file.close()
            raise
        self.removing = SqliteRemoving(self._thread, self._writer, self._lanes, self._checkpoints)
        self._high_watermark = self._writer.high_watermark
        self._is_open = True

    async def close(self) -> None:
        """After a failure, on a full disk, or while another program has locked the database, the
        next `open` takes it for an unclean stop. If it is cancelled while the disk does not answer,
        the threads stay: only the end of the process ends them. Raises StoreError."""
        if not self._is_open:
            return
        self._is_open = False
        for tail in self._tails:
            tail.end()
        if self._looking is not None:
            await asyncio.wait([self._looking])
        await self._checkpoints.close()
        await self._lanes.close()  # Else they keep the write-ahead log from being folded in.
        failure: StoreError | None = None
        try:
            await self._thread.run(self._writer.stop)
        except (StoreFull, StoreBusy):
            pass
        except StoreError as error:
            failure = error
        await self._thread.close()
        self._writer.connection_closed()
        self._file.close()
        if failure is not None:
            raise failure

    async def append(
        self,
        batch: Sequence[Message],
        state: Sequence[Operation] = (),
        *,
        durable: bool = True,
        places: Sequence[Place] = (),
    ) -> None:
        """If the caller is cancelled, readers of `tail` see the batch with the next one."""
        self._require_open()
        durable = durable and self._fsync
        if not (batch or state or durable):
            fill_in(state, places, self._high_watermark, 0)
            return
        began = perf_counter()
        try:
            committed = await self._thread.run(self._writer.commit, batch, state, durable, places)
        except StoreCorrupt as error:
            raise await self._file.failure_behind(error) or error from error.__cause__
        # No await from here on: the caller goes on before the readers of `tail`.
        if len(batch) <= SMALL_MAX and is_small(batch, state) and not self._checkpoints.running:
            self._in_loop.handed_over(perf_counter() - began, committed, durable=durable)
        if batch:
            self._high_watermark = committed.last
            for tail in self._tails:
                tail.add(committed.before, batch, committed.size + 200 * len(batch))
        self._checkpoints.start_if_due()

    def append_now(
        self,
        batch: Sequence[Message],
        state: Sequence[Operation],
        *,
        durable: bool,
        places: Sequence[Place],
        committed: Callable[[], None],
    ) -> bool:
        durable = durable and self._fsync
        if len(batch) > SMALL_MAX or not (self._is_open and (batch or state or durable)):
            return False
        idle = self._thread.idle and not self._checkpoints.running
        if not (idle and self._in_loop.suits(batch, state, durable=durable)):
            return False
        try:
            commit = self._writer.commit
            done = self._thread.run_here(commit, batch, state, durable, places, lock_wait_ms=0)
        except StoreBusy:
            return False  # The writer's thread can wait for whoever has locked it.
        self._in_loop.made(done, durable=durable)
        self._high_watermark = done.last
        committed()
        if batch:
            for tail in self._tails:
                tail.hand_on(done.before, batch, done.size + 200 * len(batch))
        self._checkpoints.start_if_due()
        return True

    async def transact(self, operations: Sequence[Operation]) -> None:
        await self.append((), operations)

    async def tail(
        self, start: Offset, take: TakeAtOnce | None = None
    ) -> AsyncIterator[Sequence[Message] | Skipped]:
        """Ends when the store is closed."""
        position = start
        tail = Tail(take)
        self._tails.add(tail)
        try:
            while not tail.ended:
                if batch := tail.take(position):
                    position = Offset(batch[-1].offset + 1)
                    yield batch
                elif position < self.missing_before:
                    skipped = Skipped(position, Offset(self.missing_before - 1))
                    position = self.missing_before
                    yield skipped
                elif position <= self._high_watermark:
                    try:
                        read = await self.read(position, self._high_watermark)
                    except StoreUnavailable:
                        if tail.ended:
                            return
                        raise
                    if position < self.missing_before:
                        continue  # `trim` came between: messages may be missing from the read.
                    position = read.next
                    if read.messages:
                        yield read.messages
                else:
                    position = await tail.wait(position)
        finally:
            self._tails.discard(tail)

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
        asked, start, end = start, max(start, self.log_start), min(end, self._high_watermark)
        read = Read([], start)
        while read.next <= start <= end:
            read = await self._read(Reader.read, start, end, filters, limit, bytes_max)
        if self.removing.has_unread and filters is not None:
            await self.removing.tell_unread(asked, read, filters)
        return await self._lanes.confirmed(read)

    async def fetch(self, offsets: Sequence[Offset], *, bytes_max: int = sys.maxsize) -> Read:
        return await self._lanes.confirmed(await self._read(Reader.fetch, offsets, bytes_max))

    async def offset_at(self, time_us: int) -> Offset:
        return await self._when(FirstAt(time_us, self.log_start, self._high_watermark))

    async def last_before(self, time_us: int) -> Offset:
        return await self._when(LastBefore(time_us, self.log_start, self._high_watermark))

    async def _when(self, search: When) -> Offset:
        while not search.done:
            await self._read(Reader.look_for_time, search)
        return search.offset

    async def nth_last(self, filters: Sequence[str] | None, count: int) -> Offset:
        start, offset, part = self.log_start, Offset(self._high_watermark + 1), Reader.nth_last_part
        while count > 0 and offset > start:
            count, offset = await self._read(part, filters, count, start, offset - 1)
        return offset

    async def count(
        self, filters: Sequence[str], start: Offset, end: Offset, *, looks_max: int = sys.maxsize
    ) -> tuple[int, Offset]:
        count, position, end = 0, max(start, self.log_start), min(end, self._high_watermark)
        while position <= end and looks_max > 0:
            found, position = await self._read(Reader.count_part, filters, position, end)
            count, looks_max = count + found, looks_max - 1
        return count, position

    async def measure(self, stretches: Sequence[Stretch], through: Offset) -> list[Amount]:
        self._require_open()
        end = min(through, self._high_watermark)
        return await self._lanes.measure(stretches, self.log_start, end)

    async def amount(self, offsets: Sequence[Offset]) -> Amount:
        return await self._read(Reader.amount, offsets)

    async def retained(self, filters: Sequence[str]) -> list[Offset]:
        if self._looking is None:
            self._looking = tasks.start(self._look_for_hidden(), self._not_looked)
        if not self._hidden.done:
            await asyncio.wait([self._looking], timeout=LOOK_WAIT_S)
        search = await self._read(Reader.search_retained, filters)
        found: list[int] = []
        while not search.done:
            found += await self._read(Reader.retained, search)
        if self._hidden.names:
            found = [*{*found, *await self._read(Reader.hidden_retained, self._hidden, filters)}]
        return await asyncio.to_thread(in_order, found)

    async def _look_for_hidden(self) -> None:
        with suppress(StoreError):  # Whoever reads tells it.
            while not self._hidden.done:
                await self._read(Reader.look_for_hidden, self._hidden)

    def _not_looked(self, error: Exception) -> None:
        logger.critical("%s: nobody knows what is hidden", self.path, exc_info=error)

    async def still_retained(self, offsets: Sequence[Offset], now_us: int) -> list[Offset]:
        return await self._read(Reader.still_retained, offsets, now_us)

    async def forget_expired(self, now_us: int) -> None:
        self._require_open()
        while await self._thread.run(self._writer.forget_expired, now_us):
            self._checkpoints.start_if_due()

    async def get(self, kind: type[D], key: tuple[str, ...]) -> D | None:
        return next(iter(await self.scan(kind, key)), None)

    async def scan(self, kind: type[D], key: tuple[str, ...] = ()) -> list[D]:
        return cast("list[D]", await self.scan_together(cast(Any, [kind]), key))

    async def scan_part(
        self, kind: type[D], key: tuple[str, ...] = (), after: Key | None = None
    ) -> list[D]:
        return await self._read_documents(Reader.documents, cast(Any, [kind]), key, after)

    async def scan_together(
        self, kinds: Sequence[type[Document]], key: tuple[str, ...]
    ) -> list[Document]:
        documents: list[Document] = []
        after: Key | None = None
        while True:
            part = await self._read_documents(Reader.documents, kinds, key, after)
            documents += part
            if len(part) < SELECTED_AT_ONCE_MAX:
                return documents
            kinds = kinds[kinds.index(type(part[-1])) :]
            after = key_of(part[-1])

    async def without_subscriber(self, names: Sequence[str]) -> list[SessionDocument]:
        return await self._read_documents(Reader.without_subscriber, names)

    async def revision(self, kind: type[Document], key: tuple[str, ...]) -> int:
        return await self._read_documents(Reader.revision, kind, key)

    async def trim(self, before: Offset) -> int:
        self._require_open()
        return await self.removing.trim(min(before, Offset(self._high_watermark + 1)))

    async def stats(self) -> StoreStats:
        return StoreStats(
            engine=f"sqlite {self.sqlite_version}",
            high_watermark=self._high_watermark,
            log_start=self.log_start,
            messages=self._writer.message_count,
            retained=self._writer.retained_count,
            bytes_on_disk=bytes_on_disk(self.path),
        )

    async def _read(
        self, function: Callable[Concatenate[Reader, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        self._require_open()
        return await self._lanes.messages(function, *args, **kwargs)

    async def _read_documents(
        self, function: Callable[Concatenate[Reader, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        self._require_open()
        return await self._lanes.documents(function, *args, **kwargs)

    def _require_open(self) -> None:
        if not self._is_open:
            raise StoreUnavailable("the store is not open")
