"""Opening the database: makes its file, connects, sets the pragmas and reads them back."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from functools import partial
from pathlib import Path

from broker import __version__
from broker.errors import SchemaMismatch, StoreBusy, StoreFull, StoreUnavailable
from broker.message import Offset
from broker.store.sqlite import figures
from broker.store.sqlite.files import schema, spare
from broker.store.sqlite.files.file import DatabaseFile
from broker.store.sqlite.reader import Reader
from broker.store.sqlite.repair import recovery
from broker.store.sqlite.repair.damaged import Damage
from broker.store.sqlite.rows import BLOCK_SHIFT
from broker.store.sqlite.thread import ConnectionThread
from broker.store.sqlite.writer import Writer

STATEMENTS_CACHED = 128
WRITER_CACHE_KIB = 16_000
READER_CACHE_KIB = 8_000
WAL_FILE_BYTES_MAX = 64 << 20
"""The file of the write-ahead log is cut to this size when the log starts over."""

LOCK_RETRY_S = 0.5

logger = logging.getLogger(__name__)


async def open_writer(
    file: DatabaseFile, damage: Damage, *, accept_loss: bool, is_copy: bool = False
) -> tuple[ConnectionThread, Writer]:
    """Migrate the database and begin a run on it, if nothing of it is missing (see `recovery`).

    While another program has locked it, this says so once and waits. Raises SchemaMismatch,
    StoreCorrupt, StoreError.
    """
    path = file.path
    thread: ConnectionThread | None = None
    waiting = False
    try:
        while True:
            try:
                if thread is None:
                    noted = recovery.examine(
                        path, boot_id(), accept_loss=accept_loss, is_copy=is_copy
                    )
                    thread = await _connect(path, "rw")
                make = partial(_make_writer, is_copy=is_copy)
                return thread, await thread.run(make, thread.database, path, noted, damage)
            except StoreFull:
                if not spare.give_up(path):
                    raise
                logger.warning("%s is given up, as the disk is full", spare.spare_file(path).name)
            except StoreBusy as error:
                if not waiting:
                    logger.warning("%s: the broker starts when that lets go of it", error)
                waiting = True
                await asyncio.sleep(LOCK_RETRY_S)
    except BaseException:
        if thread is None:
            file.undo()
        else:
            await thread.close()
        raise


async def open_reader(path: Path, damage: Damage) -> tuple[ConnectionThread, Reader]:
    """A read-only connection to a database that `open_writer` has opened. Raises StoreError."""
    thread = await _connect(path, "ro")
    try:
        return thread, await thread.run(_make_reader, thread.database, damage)
    except BaseException:
        await thread.close()
        raise


async def open_beside(path: Path, *, writes: bool) -> ConnectionThread:
    """A connection for checkpoints. Raises StoreError."""
    thread = await _connect(path, "rw" if writes else "ro")
    try:
        await thread.run(_set, thread.database, "wal_autocheckpoint", 0)
    except BaseException:
        await thread.close()
        raise
    return thread


async def _connect(path: Path, mode: str) -> ConnectionThread:
    return await ConnectionThread.connect(
        _uri(path, mode),
        path,
        uri=True,
        timeout=recovery.LOCK_WAIT_S,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=STATEMENTS_CACHED,
    )


def _uri(path: Path, mode: str) -> str:
    return f"{path.absolute().as_uri()}?mode={mode}"


def _make_writer(
    database: sqlite3.Connection, path: Path, noted: Offset, damage: Damage, *, is_copy: bool
) -> Writer:
    schema.is_new(database, path)  # Before anything is changed in a foreign database.
    _set(database, "journal_mode", "wal")
    _set(database, "synchronous", 2)
    _set(database, "foreign_keys", 1)
    _set(database, "wal_autocheckpoint", 0)
    _set(database, "journal_size_limit", WAL_FILE_BYTES_MAX)
    _set(database, "cache_size", -WRITER_CACHE_KIB)
    _set(database, "secure_delete", "fast", reads=2)  # ON writes every page that `trim` frees.
    schema.migrate(database, path, schema.migrations())
    if not is_copy and database.execute("SELECT 1 FROM copies").fetchone():
        raise SchemaMismatch(
            f"{path} is a copy of a log that several brokers share: only a broker that has the"
            " setting `store` of that log may write into it"
        )
    writer = Writer(database, path)
    writer.start(boot_id(), __version__, noted, is_copy=is_copy)
    newest = writer.high_watermark >> BLOCK_SHIFT
    if Reader(database, damage).is_sound(newest, writer.high_watermark):
        writer.read_open_block()
    else:
        with writer.transaction():
            figures.distrust(database, newest)
    return writer


def _make_reader(database: sqlite3.Connection, damage: Damage) -> Reader:
    _set(database, "query_only", 1)
    _set(database, "wal_autocheckpoint", 0)
    _set(database, "cache_size", -READER_CACHE_KIB)
    return Reader(database, damage)


def _set(
    database: sqlite3.Connection, pragma: str, value: int | str, *, reads: int | None = None
) -> None:
    """Set it and read it back: SQLite reports no error for a pragma that it cannot follow.

    `reads`: the value to read back, if it is not the one that is written.
    """
    database.execute(f"PRAGMA {pragma} = {value}").fetchall()
    (found,) = database.execute(f"PRAGMA {pragma}").fetchone()
    if found != (value if reads is None else reads):
        raise StoreUnavailable(f"SQLite cannot set {pragma} = {value} here (it stays {found})")


def boot_id() -> str | None:
    """Names the current start of the machine; None on a system without such a name."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return None
