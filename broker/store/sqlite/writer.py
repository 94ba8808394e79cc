"""The writer's half of SqliteStore: all writes, on the one connection for them.

- It is called in that connection's thread or, for a small commit, in the event loop's; one call at
  a time (see SqliteStore).
- The checksum of a message has its offset in it, so the writer counts the offsets (`offsets.py`).
  Should another program have inserted messages, the transaction is done once more with others.
- An append is one transaction: new names, the messages in few statements, the sparse index, the
  retained pointers, the documents. A rollback empties the caches here.
- After a failed write other than a full disk nothing more is written: only opening the file afresh
  can tell whether a commit whose fsync failed is in it. (S7)
"""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from broker.documents import Operation, Place, fill_in
from broker.errors import StoreBusy, StoreError, StoreFull, StoreUnavailable
from broker.message import Message, Offset
from broker.store.sqlite import figures, gaps, retained, tables
from broker.store.sqlite.errors import store_error
from broker.store.sqlite.figures import OpenBlock
from broker.store.sqlite.files.wal import PAGE_SIZE
from broker.store.sqlite.foreign import ForeignWrites
from broker.store.sqlite.in_loop import SMALL_MAX
from broker.store.sqlite.names import Names
from broker.store.sqlite.offsets import Offsets, OffsetsTaken
from broker.store.sqlite.repair.note import Note
from broker.store.sqlite.retention import removed
from broker.store.sqlite.rows import (
    BLOCK_SHIFT,
    INSERT_MESSAGES,
    RETAIN,
    ROW,
    ROWS_PER_STATEMENT,
    WIDTH,
    flat_rows,
    insert_rows,
)
from broker.store.sqlite.stop_watch import StopWatch

logger = logging.getLogger(__name__)

UNSYNCED_MAX = 1 << 19
"""Messages committed since the last fsync, at most. Beyond, one commit is fsynced all the same."""

ROW_BYTES = 64
"""About what a row takes beside the payload, or a cursor as a whole."""

CHECKPOINT_WAIT_MS = 100
"""How long a checkpoint waits for readers, if at all: another program's may never end."""
LOCK_WAIT_MS = 5000
"""How long a transaction waits for another program that locked the database, before it says so."""
BRIEF_LOCK_WAIT_MS = 1000
"""The same at the stop, which is not to take long, ..."""
START_LOCK_WAIT_MS = 300
"""... and at the start, which is tried again."""


Unchanged = tuple[int, Offset | None, Offset]
"""Before a transaction: the number of retained topics, the next offset, the last reserved."""


class Committed(NamedTuple):
    """One commit: the high watermark before it and after it (`last`), and bytes of messages.

    `late_s`: how much of `took_s` a small commit waited for a CPU.
    """

    before: Offset
    last: Offset
    size: int
    took_s: float
    late_s: float


class Writer:
    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        """Errors name `path`."""
        self.log_start = Offset(1)
        self.high_watermark = Offset(0)
        self.message_count = 0
        """Messages from the log start to the high watermark."""
        self.retained_count = 0
        """Topics that have a retained message."""
        self.missing_before = Offset(1)
        """Everything below was trimmed."""
        self.keeps_all = False
        """Whether the log was there before there was retention."""
        self.has_unread = False
        """Whether retention has removed something unread, when the run began."""
        self.refusal: str | None = None
        """Why nothing more is written, or None."""
        self.connection = connection
        self.path = path
        self._names = Names(connection)
        self._offsets = Offsets(connection)
        self._foreign = ForeignWrites(connection, path)
        self.open_block = OpenBlock(0, whole=False)
        """That of the high watermark. No older block gets more messages."""
        self._synced = True
        """Whether the connection is set to fsync its commits (`synchronous`)."""
        self._unsynced = 0
        self._lock_wait_ms = -1
        self._watch = StopWatch()
        self.pages = 0.0
        """About how many pages were written since the last checkpoint."""
        self.note: Note
        """Of the run, once it has begun."""

    def start(
        self, boot_id: str | None, version: str, noted: Offset, *, is_copy: bool = False
    ) -> None:
        """Begin a run on this database, where the last one ended.

        `noted` is the newest offset that is known to have been given out.

        If the last run did not stop cleanly, its newest commits may be gone (unsynced ones in a
        power cut, any if the write-ahead log was damaged), though subscribers have seen their
        offsets: leave a gap. (S2) Not in a copy of another log, which has them still.

        First the write-ahead log of an unclean stop is copied into the database. If an fsync failed
        then, parts of it may be in memory only; commits appended to it would be lost with them.
        """
        self.checkpoint("TRUNCATE")
        (stored_start,) = self.connection.execute("SELECT start FROM log").fetchone()
        self.log_start = Offset(figures.true_start(self.connection, stored_start, noted))
        self.missing_before, self.keeps_all, self.has_unread = self.connection.execute(
            "SELECT min(missing_before, ?), keeps_all <> 0,"
            " EXISTS (SELECT 1 FROM removed_unread) FROM log",
            (self.log_start,),
        ).fetchone()
        (newest,) = self.connection.execute(
            f"SELECT max(ifnull(max(offset), 0), {removed.NEWEST}) FROM messages"
        ).fetchone()
        self.high_watermark = Offset(max(newest, self.log_start - 1))
        self.open_block = OpenBlock(self.high_watermark >> BLOCK_SHIFT, whole=False)
        self.message_count = gaps.count_messages(
            self.connection, self.log_start, self.high_watermark
        )
        (self.retained_count,) = self.connection.execute("SELECT count(*) FROM retained").fetchone()
        last_run = self.connection.execute(
            "SELECT stopped_at_us FROM broker_runs ORDER BY id DESC LIMIT 1"
        ).fetchone()
        given_out = self.high_watermark if is_copy else max(noted, self.high_watermark)
        self.note = Note(self.path, given_out, boot_id, is_copy=is_copy)
        with self.transaction(lock_wait_ms=START_LOCK_WAIT_MS):
            if self.log_start != stored_start:
                logger.error(
                    "the log start is damaged: %d, and is %d", stored_start, self.log_start
                )
                self.connection.execute("UPDATE log SET start = ?", (self.log_start,))
            if is_copy:
                gaps.close(self.connection, self.high_watermark)
            elif last_run == (None,) or noted > self.high_watermark:
                gaps.leave_at_start(self.connection, noted)
            self.connection.execute(
                "INSERT INTO broker_runs (started_at_us, boot_id, version) VALUES (?, ?, ?)",
                (time.time_ns() // 1000, boot_id, version),
            )
        # The database file differs from now on from what a clean stop left, which may be a backup.
        self.checkpoint("TRUNCATE")
        self.note.moved(self.high_watermark)
        self.note.database_written()

    def read_open_block(self) -> None:
        """Make the figures of its messages now: of large ones that would take the commit that fills
        the block 0.1 s and more. The block is sound."""
        self._offsets.look_up()  # If another program takes what is next, they are made anew.
        self.open_block = OpenBlock.of_rows(self.connection, self.high_watermark >> BLOCK_SHIFT)

    def stop(self) -> None:
        """End the run cleanly: move everything into the database file, and write nothing more.

        After a failure do nothing: the next `start` takes that for an unclean stop.
        """
        if self.refusal is not None:
            return
        with self.transaction(lock_wait_ms=BRIEF_LOCK_WAIT_MS):
            self.connection.execute(
                "UPDATE broker_runs SET stopped_at_us = ?"
                " WHERE id = (SELECT max(id) FROM broker_runs)",
                (time.time_ns() // 1000,),
            )
            with suppress(OffsetsTaken):
                self._offsets.give_back()
        self.checkpoint("TRUNCATE")
        self.refusal = "the store is closed"
        self.note.stopped()

    def connection_closed(self) -> None:
        """SQLite has closed the database."""
        self.note.close()
        self._watch.close()

    def commit(
        self,
        batch: Sequence[Message],
        state: Sequence[Operation],
        durable: bool,
        places: Sequence[Place] = (),
        *,
        lock_wait_ms: int | None = None,
    ) -> Committed:
        """Store all of it or nothing, and set the offsets, also of the places.

        Raises StoreConflict, and as `transaction`.
        """
        try:
            return self._commit(batch, state, durable, places, lock_wait_ms)
        except OffsetsTaken:
            self._offsets.next = None
            return self._commit(batch, state, durable, places, lock_wait_ms)

    def _commit(
        self,
        batch: Sequence[Message],
        state: Sequence[Operation],
        durable: bool,
        places: Sequence[Place],
        lock_wait_ms: int | None,
    ) -> Committed:
        """As `commit`. Raises OffsetsTaken as well: nothing was stored."""
        before = self.high_watermark
        first = before + 1
        count = len(batch)
        self._watch.begin(exact=count <= SMALL_MAX)
        synced = durable or self._unsynced + count >= UNSYNCED_MAX
        try:  # As `transaction`, without two context managers for each message that comes alone.
            unchanged = self._begin(synced, lock_wait_ms)
            try:
                if 0 < count <= ROWS_PER_STATEMENT:
                    first = self._insert(batch)
                else:
                    for i in range(0, count, ROWS_PER_STATEMENT):
                        part_first = self._insert(batch[i : i + ROWS_PER_STATEMENT])
                        first = first if i else part_first
                if places:
                    fill_in(state, places, before, first)
                if state:
                    tables.apply(self.connection, state)
                if not (batch or state):
                    tables.touch(self.connection)
                self.connection.execute("COMMIT")
            except BaseException:
                self._roll_back(unchanged)
                raise
        except (sqlite3.Error, OSError) as error:
            raise self._failed(error) from error
        offsets: Any = range(first, first + count)  # `Offset` would be a call for each.
        for message, offset in zip(batch, offsets, strict=True):
            message.offset = offset
        if batch:
            self.high_watermark = Offset(first + count - 1)
            self.message_count += count
            self.note.moved(self.high_watermark)
        size = sum([message.size for message in batch])
        self._unsynced = 0 if synced else self._unsynced + count
        filled = (size + ROW_BYTES * (count + len(state))) / PAGE_SIZE
        # The one that was not full, what is filled, and for new ones those above and the first.
        self.pages += 1 + bool(state) + filled + 2 * min(1.0, filled)
        return Committed(before, self.high_watermark, size, *self._watch.end())

    @contextmanager
    def transaction(
        self, *, synced: bool = True, lock_wait_ms: int | None = None
    ) -> Iterator[None]:
        """All or nothing, and fsynced if `synced`.

        Waits `lock_wait_ms` (None: LOCK_WAIT_MS) for another program that locked the database.
        Raises StoreFull, StoreBusy, StoreUnavailable.
        """
        with self.writing():
            unchanged = self._begin(synced, lock_wait_ms)
            try:
                yield
                self.connection.execute("COMMIT")
            except BaseException:
                self._roll_back(unchanged)
                raise

    def _begin(self, synced: bool, lock_wait_ms: int | None) -> Unchanged:
        """Returns what `_roll_back` takes."""
        if self.refusal is not None:
            raise StoreUnavailable(self.refusal)
        if synced != self._synced:
            self._set_synchronous(synced)
        wait_ms = LOCK_WAIT_MS if lock_wait_ms is None else lock_wait_ms
        if wait_ms != self._lock_wait_ms:
            self._set_lock_wait(wait_ms)
        self.connection.execute("BEGIN IMMEDIATE")
        return self.retained_count, self._offsets.next, self._offsets.reserved

    def _roll_back(self, unchanged: Unchanged) -> None:
        self.retained_count, self._offsets.next, self._offsets.reserved = unchanged
        self._names.forget()
        self.open_block = OpenBlock(self.high_watermark >> BLOCK_SHIFT, whole=False)
        if self.connection.in_transaction:
            self.connection.execute("ROLLBACK")

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Raises StoreError; and once that was more than a full disk or a lock, at every use."""
        if self.refusal is not None:
            raise StoreUnavailable(self.refusal)
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise self._failed(error) from error

    def _failed(self, error: sqlite3.Error | OSError) -> StoreError:
        failure = store_error(error, self.path)
        if not isinstance(failure, StoreFull | StoreBusy):
            self._refuse(failure)
        return failure

    def _refuse(self, failure: StoreError) -> None:
        self.refusal = f"no more writes since: {failure}"
        self.note.disk_failed()

    def _set_lock_wait(self, milliseconds: int) -> None:
        self.connection.execute(f"PRAGMA busy_timeout = {milliseconds}")
        self._lock_wait_ms = milliseconds

    def _set_synchronous(self, synced: bool) -> None:
        """In WAL mode, FULL means an fsync at each commit, NORMAL one at each checkpoint."""
        self.connection.execute(f"PRAGMA synchronous = {'FULL' if synced else 'NORMAL'}")
        self._synced = synced

    def _insert(self, part: Sequence[Message]) -> int:
        """Insert up to ROWS_PER_STATEMENT messages; the first offset. Raises OffsetsTaken."""
        alone = self._offsets.next is not None
        first = self._offsets.take(len(part))
        parameters = flat_rows(part, self._names.pairs, first)
        try:
            insert_rows(self.connection, INSERT_MESSAGES, ROW, "", WIDTH, parameters)
        except sqlite3.IntegrityError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY:
                raise
            raise OffsetsTaken from error
        self.open_block = self.open_block.index(self.connection, first, parameters, alone=alone)
        if 1 in parameters[RETAIN::WIDTH]:
            self.retained_count += retained.move(self.connection, first, parameters)
        return first

    def forget_names(self) -> None:
        """Names were removed: what stood for them is nobody's number any more."""
        self._names.forget()

    def forget_expired(self, now_us: int) -> bool:
        """As `Store.forget_expired`. As that is asked for every minute, foreign writes are told."""
        self._foreign.look()
        with self.transaction(synced=False):
            forgotten, more = retained.forget_expired(self.connection, now_us)
            self.retained_count -= forgotten
        return more

    def touch(self) -> None:
        """Write a page and change nothing, unsynced."""
        with self.transaction(synced=False, lock_wait_ms=0):
            tables.touch(self.connection)

    def checkpoint(self, mode: str) -> tuple[int, int]:
        """Copy pages into the database. `mode` is SQLite's; all but PASSIVE wait for readers.

        Returns the pages in the write-ahead log, and how many of them were copied; 0 on a full
        disk, or while another program has locked the database: they stay there, safe.
        """
        self._set_lock_wait(CHECKPOINT_WAIT_MS)
        return tables.checkpoint(self.connection, self.path, mode)

    def sync(self, descriptor: int) -> None:
        """Sync a file of the database, in any thread. A failure is one of a write: the kernel may
        have given up what was to be synced, and SQLite may not hear of it. Raises StoreError."""
        try:
            os.fdatasync(descriptor)
        except OSError as error:
            failure = store_error(error, self.path)
            self._refuse(failure)
            raise failure from error
