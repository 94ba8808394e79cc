"""SqliteStore: the log and its documents in one SQLite database, and nothing else on the disk.

- One connection, in its own thread, does all writes and all checkpoints (`writer.py`): SQLite
  before 3.51.3 can corrupt a write-ahead log that two connections write or checkpoint at once.
  Reads go to read-only connections with threads of their own (`reader.py`) and never wait for a
  commit.
- An append is one hop to the writer's thread and one transaction there. A small one is committed
  in the caller's thread instead, while the disk is so quick that the hop there and back would take
  longer, and the writer's thread has nothing to do: the connection is in one hand at any time.
- WAL with `synchronous = FULL`: COMMIT returns when the write-ahead log is fsynced. What needs no
  fsync (`durable=False`, or `durability = "os"`) is committed without and survives a kill, not a
  power cut. After one, SQLite may have lost the newest of those, whose offsets others have seen:
  `open` notices that the machine was started anew since an unclean stop, and leaves a gap (S2).
- After a failed write other than a full disk the store refuses writes until it is opened again:
  whether a commit whose fsync failed is there, only reading the file afresh can tell. (S7)
- The database file and what lies beside it belong to the one broker that runs on it.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from time import perf_counter
from typing import Concatenate, ParamSpec, TypeVar

import aiosqlite

from broker import __version__
from broker.documents import D, Delete, Document, Operation
from broker.errors import (
    SchemaMismatch,
    StoreConflict,
    StoreCorrupt,
    StoreError,
    StoreFull,
    StoreUnavailable,
)
from broker.message import Message, Offset
from broker.store import Read, Skipped, StoreStats
from broker.store.sqlite import schema
from broker.store.sqlite.checking import check
from broker.store.sqlite.reader import Reader
from broker.store.sqlite.tables import TABLES
from broker.store.sqlite.writer import Writer
from broker.store.tail import Tail

READERS = 2
STATEMENTS_CACHED = 128
HERE_MAX = 8
HERE_BYTES_MAX = 1 << 14
"""Messages and operations together, and their payload, that may be committed without a hop to the
writer's thread, ..."""
QUICK_COMMIT_S = 0.0005
QUICK_COMMITS_MIN = 32
"""... if so many commits before were all as quick as that: then the event loop waits less for the
disk than it would take to hand the batch over. `make bench`, qos1-w1 and latency-qos1."""

CLOSED = "the store is closed"
WRITE_ERRORS = (sqlite3.Error, OSError, StoreError)

P = ParamSpec("P")
T = TypeVar("T")


class SqliteStore:
    """See `broker.store.Store`."""

    def __init__(self, path: Path, *, durability: str = "fsync") -> None:
        """`durability="os"`: no commit is fsynced (but one in half a million messages)."""
        self.path = path
        self.sqlite_version = sqlite3.sqlite_version
        self._fsync = durability == "fsync"
        self._connections: list[aiosqlite.Connection] = []
        """The writer's, then the readers'."""
        self._readers: list[Reader] = []
        self._next_reader = 0
        self._failure: str | None = "the store is not open"
        """Why nothing may be written, or None."""
        self._high_watermark = Offset(0)
        self._log_start = Offset(1)
        self._tails: set[Tail] = set()
        self._checkpointing: asyncio.Task[None] | None = None
        self._writes = 0
        """Calls that the writer's thread has not answered yet."""
        self._quick_commits = {True: 0, False: 0}
        """How many of the last commits in a row were quick: fsynced ones, and the others."""

    @property
    def high_watermark(self) -> Offset:
        return self._high_watermark

    @property
    def log_start(self) -> Offset:
        return self._log_start

    async def open(self) -> None:
        try:
            _create(self.path)
            connection = await self._connect("rw")
            self._connections.append(connection)
            self._writer = await self._run(connection, self._open_writer)
            for _ in range(READERS):
                connection = await self._connect("ro")
                self._connections.append(connection)
                self._readers.append(await self._run(connection, _open_reader))
        except BaseException:
            await self._disconnect()
            raise
        self._failure = None

    async def close(self) -> None:
        """Also after a failure or on a full disk: the next `open` takes it for an unclean stop."""
        failure, self._failure = self._failure, CLOSED
        for tail in self._tails:
            tail.end()
        if self._checkpointing is not None:
            await self._checkpointing
        # The readers first: they would keep the write-ahead log from being folded in.
        self._readers = []
        while len(self._connections) > 1:
            await self._connections.pop().close()
        try:
            if failure is None:
                with suppress(StoreFull):
                    await self._run(self._connections[0], self._stop_writer)
        finally:
            await self._disconnect()

    async def append(
        self,
        batch: Sequence[Message],
        state: Sequence[Operation] = (),
        *,
        durable: bool = True,
    ) -> None:
        if not (batch or state):
            return
        durable = durable and self._fsync
        if self._is_for_here(batch, state, durable):
            try:
                self._commit_here(batch, state, durable)
            except _Busy:
                pass  # The writer's thread can wait for whoever has locked it.
            else:
                return
        loop = asyncio.get_running_loop()
        await self._write(self._commit, loop, batch, state, durable)

    def _is_for_here(
        self, batch: Sequence[Message], state: Sequence[Operation], durable: bool
    ) -> bool:
        """Whether to commit this in the loop's own thread: it is small, the disk is quick, and
        nothing is under way. What is deleted may take a lot with it."""
        return (
            len(batch) + len(state) <= HERE_MAX
            and self._quick_commits[durable] >= QUICK_COMMITS_MIN
            and not self._writes
            and Delete not in map(type, state)
            and sum([message.size for message in batch]) <= HERE_BYTES_MAX
        )

    def _commit_here(
        self, batch: Sequence[Message], state: Sequence[Operation], durable: bool
    ) -> None:
        self._require_writable()
        began = perf_counter()
        try:
            last, size = self._writer.commit(batch, state, durable, wait_for_lock=False)
        except WRITE_ERRORS as error:
            raise self._failed(error) from error
        self._committed(batch, last, size, durable, perf_counter() - began)

    async def transact(self, operations: Sequence[Operation]) -> None:
        await self.append((), operations)

    def _commit(
        self,
        connection: sqlite3.Connection,
        loop: asyncio.AbstractEventLoop,
        batch: Sequence[Message],
        state: Sequence[Operation],
        durable: bool,
    ) -> None:
        began = perf_counter()
        last, size = self._writer.commit(batch, state, durable)
        took_s = perf_counter() - began
        # Not what `append` does when it goes on: its caller may have been cancelled meanwhile, and
        # the batch is committed all the same.
        loop.call_soon_threadsafe(self._committed, batch, last, size, durable, took_s)

    def _committed(
        self,
        batch: Sequence[Message],
        last: Offset | None,
        size: int,
        durable: bool,
        took_s: float,
    ) -> None:
        self._quick_commits[durable] = (
            self._quick_commits[durable] + 1 if took_s <= QUICK_COMMIT_S else 0
        )
        if last is not None:
            before, self._high_watermark = self._high_watermark, last
            for tail in self._tails:
                tail.add(before, batch, size + 200 * len(batch))
        self._checkpoint_if_due()

    def _checkpoint_if_due(self) -> None:
        if self._writer.wants_checkpoint and self._checkpointing is None and not self._failure:
            self._checkpointing = asyncio.create_task(self._checkpoint())

    async def _checkpoint(self) -> None:
        """Between two commits, so that no acknowledgement that is due waits for it."""
        try:
            await self._write(lambda connection: self._writer.checkpoint())
        except StoreError:
            pass  # What was committed is safe in the write-ahead log; `_failure` says the rest.
        finally:
            self._checkpointing = None

    async def tail(self, start: Offset) -> AsyncIterator[Sequence[Message] | Skipped]:
        """Ends when the store is closed."""
        position = start
        tail = Tail()
        self._tails.add(tail)
        try:
            while not tail.ended:
                if batch := tail.take(position):
                    position = Offset(batch[-1].offset + 1)
                    yield batch
                elif position < self._log_start:
                    skipped = Skipped(position, Offset(self._log_start - 1))
                    position = self._log_start
                    yield skipped
                elif position <= self._high_watermark:
                    try:
                        read = await self.read(position, self._high_watermark)
                    except StoreUnavailable:
                        if tail.ended:
                            return
                        raise
                    if position < self._log_start:
                        continue  # `trim` came between: what was read may lack what it removed.
                    position = read.next
                    if read.messages:
                        yield read.messages
                else:
                    await tail.wait()
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
        start = max(start, self._log_start)
        end = min(end, self._high_watermark)
        if start > end:
            return Read([], start)
        return await self._read(Reader.read, start, end, filters, limit, bytes_max)

    async def fetch(
        self, offsets: Sequence[Offset], *, bytes_max: int = sys.maxsize
    ) -> list[Message]:
        return await self._read(Reader.fetch, offsets, bytes_max) if offsets else []

    async def offset_at(self, time_us: int) -> Offset:
        return await self._read(Reader.offset_at, time_us, self._log_start, self._high_watermark)

    async def nth_last(self, filters: Sequence[str] | None, count: int) -> Offset:
        if count <= 0:
            return Offset(self._high_watermark + 1)
        return await self._read(
            Reader.nth_last, filters, count, self._log_start, self._high_watermark
        )

    async def retained(self, filters: Sequence[str]) -> list[Offset]:
        return await self._read(Reader.retained, filters)

    async def get(self, kind: type[D], key: tuple[str, ...]) -> D | None:
        documents = await self.scan(kind, key)
        return documents[0] if documents else None

    async def scan(self, kind: type[D], key: tuple[str, ...] = ()) -> list[D]:
        documents: list[D] = await self._read(Reader.documents, TABLES[kind], key)
        return documents

    async def revision(self, kind: type[Document], key: tuple[str, ...]) -> int:
        return await self._read(Reader.revision, TABLES[kind], key)

    async def trim(self, before: Offset) -> int:
        before = min(before, Offset(self._high_watermark + 1))
        if before > self._log_start:
            await self._write(lambda connection: self._writer.move_log_start(before))
            self._log_start = before
        removed = position = 0
        while position < self._log_start:
            gone, position = await self._write(
                lambda connection, position: self._writer.trim_some(self._log_start, position),
                position,
            )
            removed += gone
            self._checkpoint_if_due()
        return removed

    async def stats(self) -> StoreStats:
        names = [self.path, *(Path(f"{self.path}{suffix}") for suffix in ("-wal", "-shm"))]
        return StoreStats(
            engine=f"sqlite {self.sqlite_version}",
            high_watermark=self._high_watermark,
            log_start=self._log_start,
            messages=self._high_watermark - self._log_start + 1,
            retained=self._writer.retained_count,
            bytes_on_disk=sum(name.stat().st_size for name in names if name.exists()),
        )

    async def check(self, progress: Callable[[Offset], None] | None = None) -> list[str]:
        """`progress` is called in the thread of the check."""
        async with self._own_reader() as connection:
            return await self._run(connection, check, progress)

    async def backup(self, path: Path) -> None:
        async with self._own_reader() as connection:
            await self._run(connection, _back_up, path)

    async def _write(
        self,
        function: Callable[Concatenate[sqlite3.Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run it in the writer's thread. A failure other than a full disk ends all writing."""
        self._require_writable()
        loop = asyncio.get_running_loop()

        # Whoever waits for this may be cancelled meanwhile, and the thread goes on all the same: so
        # that it is done, and how, is noted here.
        def call(connection: sqlite3.Connection) -> T:
            try:
                return function(connection, *args, **kwargs)
            except WRITE_ERRORS as error:
                raise self._failed(error) from error
            finally:
                loop.call_soon_threadsafe(self._written)

        self._writes += 1
        return await self._run(self._connections[0], call)

    def _written(self) -> None:
        self._writes -= 1

    def _require_writable(self) -> None:
        if self._failure is not None:
            raise StoreUnavailable(self._failure)

    def _failed(self, error: sqlite3.Error | OSError | StoreError) -> StoreError:
        """What to raise for it. Nothing may be written after it unless it was a full disk."""
        failure = error if isinstance(error, StoreError) else _store_error(error, self.path)
        if not isinstance(failure, StoreFull | StoreConflict | _Busy):
            self._failure = f"no more writes since: {failure}"
        return failure

    async def _read(
        self,
        function: Callable[Concatenate[Reader, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run it in a reader's thread."""
        self._require_open()
        i = self._next_reader = (self._next_reader + 1) % len(self._readers)
        reader = self._readers[i]
        return await self._run(
            self._connections[1 + i], lambda connection: function(reader, *args, **kwargs)
        )

    def _require_open(self) -> None:
        if not self._readers:
            raise StoreUnavailable("the store is not open")

    async def _run(
        self,
        connection: aiosqlite.Connection,
        function: Callable[Concatenate[sqlite3.Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run a function in the connection's thread: one hop for a whole transaction.

        aiosqlite has no public call for that, and a hop for each statement would cost more than
        the fsync, so this method (and no other) uses what its own methods use.
        """
        try:
            database = connection._conn
        except ValueError as error:
            raise StoreUnavailable("the store is closed") from error
        try:
            return await connection._execute(  # type: ignore[no-any-return, no-untyped-call]
                function, database, *args, **kwargs
            )
        except (sqlite3.Error, OSError) as error:
            raise _store_error(error, self.path) from error

    async def _connect(self, mode: str) -> aiosqlite.Connection:
        try:
            return await aiosqlite.connect(
                f"{self.path.absolute().as_uri()}?mode={mode}",
                uri=True,
                isolation_level=None,
                check_same_thread=False,
                cached_statements=STATEMENTS_CACHED,
            )
        except sqlite3.Error as error:
            raise _store_error(error, self.path) from error

    @asynccontextmanager
    async def _own_reader(self) -> AsyncIterator[aiosqlite.Connection]:
        """A read-only connection for what takes long."""
        self._require_open()
        connection = await self._connect("ro")
        try:
            await self._run(connection, _open_reader)
            yield connection
        finally:
            await connection.close()

    async def _disconnect(self) -> None:
        self._readers = []
        while self._connections:
            await self._connections.pop().close()

    def _open_writer(self, connection: sqlite3.Connection) -> Writer:
        schema.is_new(connection, self.path)  # Before anything is changed in a foreign database.
        _set(connection, "journal_mode", "wal")
        _set(connection, "synchronous", 2)
        _set(connection, "foreign_keys", 1)
        _set(connection, "wal_autocheckpoint", 0)
        connection.execute("PRAGMA journal_size_limit = 67108864")
        connection.execute("PRAGMA cache_size = -16000")
        schema.migrate(connection, self.path, schema.migrations())
        writer = Writer(connection)
        self._log_start, self._high_watermark = writer.start(_boot_id(), __version__)
        return writer

    def _stop_writer(self, connection: sqlite3.Connection) -> None:
        if self._failure == CLOSED:  # No write that was still under way has failed.
            self._writer.stop()


class _Busy(StoreUnavailable):
    """Another process kept its lock on the database; nothing was begun."""


def _store_error(error: sqlite3.Error | OSError, path: Path) -> StoreError:
    if isinstance(error, OSError):
        return StoreUnavailable(f"{path}: {error.strerror or error}")
    match getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF:
        case sqlite3.SQLITE_FULL:
            return StoreFull(f"{path}: no space left for the log")
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return StoreCorrupt(f"{path}: {error}; `pubsub check` says more")
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return _Busy(f"{path} is locked by another process")
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN:
            return StoreUnavailable(f"{path} or its directory cannot be written: {error}")
        case _:
            return StoreUnavailable(f"{path}: {error}")


def _create(path: Path) -> None:
    """Make the file if there is none, for its owner only; SQLite gives that mode to the rest."""
    if path.is_dir():
        raise SchemaMismatch(f"{path} is a directory, not a database")
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        schema.sync_directory(path.parent)
    except FileExistsError:
        if not os.access(path, os.R_OK | os.W_OK):
            raise StoreUnavailable(f"{path} cannot be written: check who owns it") from None
    except OSError as error:
        raise StoreUnavailable(f"{path} cannot be created: {error.strerror}") from error


def _open_reader(connection: sqlite3.Connection) -> Reader:
    _set(connection, "query_only", 1)
    _set(connection, "wal_autocheckpoint", 0)
    connection.execute("PRAGMA cache_size = -8000")
    return Reader(connection)


def _set(connection: sqlite3.Connection, pragma: str, value: int | str) -> None:
    """Set it and read it back: a pragma that SQLite cannot follow is no error to it."""
    connection.execute(f"PRAGMA {pragma} = {value}").fetchall()
    (found,) = connection.execute(f"PRAGMA {pragma}").fetchone()
    if found != value:
        raise StoreUnavailable(f"SQLite cannot set {pragma} = {value} here (it stays {found})")


def _back_up(connection: sqlite3.Connection, path: Path) -> None:
    schema.copy_database(connection, path)


def _boot_id() -> str | None:
    """Names one start of the machine; None where the system has no name for it."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return None
