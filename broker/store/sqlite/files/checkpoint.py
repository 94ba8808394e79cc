"""Checkpoints: copy the write-ahead log into the database, and let commits wait only briefly.

A checkpoint of SQLite syncs the write-ahead log, copies the newest version of each page into the
database and, if none is left, syncs the database; then the log may start over. On one connection
no commit runs meanwhile, and the syncs alone can take longer than everything else together. So
most of it is done beside the commits, and SQLite's complete checkpoint at the end finds little:

1. The write-ahead log is synced in a thread of its own.
2. A reader of our own begins, which keeps SQLite from copying what is committed from now on. So a
   checkpoint is incomplete, and does not sync the database.
3. The database is synced in a thread of its own.
4. All of that again, while a lot was written meanwhile.

The syncs of 1 and 3 save time and nothing else: when something counts as safe is left to SQLite.

From SQLite 3.51.3 on, a second connection does 1 and 2, beside the commits too. In an older one, a
commit beside a checkpoint of another connection can corrupt the database
(https://www.sqlite.org/wal.html#walresetbug), so there the writer's connection does 2.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
from contextlib import suppress
from time import perf_counter

from broker import tasks
from broker.config import DATABASE
from broker.errors import StoreBusy, StoreError, StoreFull
from broker.store.sqlite import tables
from broker.store.sqlite.files import opening
from broker.store.sqlite.files.file import DatabaseFile
from broker.store.sqlite.files.wal import WAL_SUFFIX
from broker.store.sqlite.files.wal_growth import COST, WalGrowth
from broker.store.sqlite.thread import ConnectionThread
from broker.store.sqlite.writer import Writer

CHECKPOINT_PAGES = 1500
"""Pages (4 KiB) in the write-ahead log when a checkpoint begins. To copy them takes 4-8 ms."""
FEW_PAGES = 500
"""So many are left to the complete checkpoint, which syncs them too: 2-10 ms ..."""
ROUNDS_MAX = 4
"""... unless there are more still after so many rounds: the disk is slower than what is written."""
WAL_PAGES_MAX = 65_536
"""Pages from which on a checkpoint waits for readers, so that the write-ahead log starts over; but
not for one that has been reading for long."""

COPIES_BESIDE = sqlite3.sqlite_version_info >= (3, 51, 3)
"""Whether SQLite may write and checkpoint on two connections at once."""

logger = logging.getLogger(__name__)


def tell_cost_of_readers() -> None:
    """For the operator, who may have other programs read the database; once the broker is up."""
    if not COPIES_BESIDE:
        logger.info(
            "other programs may read %s, each time briefly: publishers wait when they end, %s",
            *(DATABASE, COST),
        )


class Checkpoints:
    def __init__(
        self, thread: ConnectionThread, writer: Writer, file: DatabaseFile, beside: ConnectionThread
    ) -> None:
        """`thread` is the writer's, `beside` one for us alone. Raises OSError."""
        self._thread = thread
        self._writer = writer
        self._file = file
        self._beside = beside
        self._wal = os.open(f"{file.path}{WAL_SUFFIX}", os.O_RDONLY)
        self._growth = WalGrowth(file.path, commits_wait=not COPIES_BESIDE)
        self._running: asyncio.Task[None] | None = None
        self._closing = False
        self._held_s = 0.0
        """How long commits had to wait for the checkpoint under way."""

    @classmethod
    async def open(
        cls, thread: ConnectionThread, writer: Writer, file: DatabaseFile
    ) -> Checkpoints:
        """Raises StoreError."""
        beside = await opening.open_beside(file.path, writes=COPIES_BESIDE)
        return cls(thread, writer, file, beside)

    async def close(self) -> None:
        """Once the checkpoint under way is over. None begins after it."""
        self._closing = True
        if self._running is not None:
            await asyncio.wait([self._running])
        await self._beside.close()
        os.close(self._wal)

    @property
    def running(self) -> bool:
        """Whether one is under way: then the disk is busy, and a commit takes longer."""
        return self._running is not None

    def start_if_due(self) -> None:
        """After each commit."""
        due = self._writer.pages >= CHECKPOINT_PAGES
        if due and self._running is None and not self._closing:
            self._running = tasks.start(self._run(), self._failed)

    async def make_room(self) -> None:
        """Return when a checkpoint is over: the write-ahead log then starts over, as far as readers
        allow, and does not have to grow."""
        if self._running is None and not self._closing:
            self._running = tasks.start(self._run(), self._failed)
        if self._running is not None:
            await asyncio.wait([self._running])

    async def _run(self) -> None:
        try:
            with suppress(StoreError):  # The write-ahead log has it all. The next write tells it.
                await self.run()
        finally:
            self._running = None

    def _failed(self, error: Exception) -> None:
        logger.critical(
            "%s: the write-ahead log grows: no checkpoint", self._file.path, exc_info=error
        )

    async def run(self) -> None:
        """One checkpoint, as far as readers allow. Raises StoreError: the rest stays in the log."""
        self._held_s = 0.0
        await self._thread.run(self._writer.note.writing_database)
        for _ in range(ROUNDS_MAX):
            await (self._copy_beside() if COPIES_BESIDE else self._copy_between())
            await self._beside.run(self._writer.sync, self._file.descriptor)
            if self._writer.pages <= FEW_PAGES:
                break
        await self._thread.run(self._complete)

    async def _copy_beside(self) -> None:
        def copy() -> None:
            self._writer.pages = 0
            with self._writer.writing():
                tables.checkpoint(self._beside.database, self._file.path, "PASSIVE")

        await self._beside.run(copy)

    async def _copy_between(self) -> None:
        """Copy between two commits what was committed up to now."""
        try:
            await self._beside.run(self._begin_reading)
            await self._thread.run(self._copy_what_is_read)
        finally:
            await self._beside.run(self._end_reading)

    def _begin_reading(self) -> None:
        self._writer.sync(self._wal)
        self._beside.database.execute("BEGIN")
        self._beside.database.execute("PRAGMA user_version").fetchone()

    def _copy_what_is_read(self) -> None:
        began = perf_counter()
        with suppress(StoreFull, StoreBusy):  # Then all is left to the complete checkpoint.
            self._writer.touch()  # This at least is not to be copied.
            self._writer.pages = 0
            with self._writer.writing():
                self._writer.checkpoint("PASSIVE")
        self._held_s += perf_counter() - began

    def _end_reading(self) -> None:
        if self._beside.database.in_transaction:
            self._beside.database.execute("ROLLBACK")

    def _complete(self) -> None:
        began = perf_counter()
        self._writer.pages = 0
        with self._writer.writing():
            pages, copied = self._writer.checkpoint("PASSIVE")
            if pages > WAL_PAGES_MAX and pages - copied <= CHECKPOINT_PAGES:
                self._writer.checkpoint("RESTART")
            self._writer.note.database_written()
        self._held_s += perf_counter() - began
        self._growth.checkpointed(pages - copied, self._held_s)
