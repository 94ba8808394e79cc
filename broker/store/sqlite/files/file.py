"""The database file beside SQLite: made if there is none, and kept from every other broker.

The lock is `flock`'s, on a descriptor that is opened before SQLite opens the file and closed after
SQLite has closed it. Both matter: SQLite's own locks are POSIX locks, which a process loses for a
file as soon as it closes any descriptor of it; then another program may delete the write-ahead log
that is in use. For the same reason nothing else in this process opens `pubsub.db` or its `-shm`
while the store is open.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from broker.errors import SchemaMismatch, StoreCorrupt, StoreError, StoreInUse
from broker.store.sqlite.errors import read_failure, store_error
from broker.store.sqlite.files.schema import sync_directory


class DatabaseFile:
    def __init__(self, path: Path) -> None:
        """Open and lock the file; make it if there is none, for its owner only: SQLite gives that
        mode to the rest. Raises SchemaMismatch, StoreInUse, StoreError."""
        if path.is_dir():
            raise SchemaMismatch(f"{path} is a directory, not a database")
        self.path = path
        try:
            self.descriptor, self._made = _open(path)
        except OSError as error:
            raise store_error(error, path) from error
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.close()
            if error.errno == errno.EWOULDBLOCK:
                raise StoreInUse(
                    f"{path} is in use by another broker, or by a command that is at work on it"
                ) from error
            raise store_error(error, path) from error

    def cannot_be_read(self) -> OSError | None:
        """Why the disk cannot read the file, if it cannot: SQLite calls that malformed. Takes up to
        READ_S; nothing is opened for it."""
        return read_failure(self.descriptor)

    async def failure_behind(self, error: StoreCorrupt) -> StoreError | None:
        """Why the disk cannot read the file, if that is what SQLite calls malformed."""
        if isinstance(error.__cause__, sqlite3.Error):
            unread = await asyncio.to_thread(self.cannot_be_read)
            return None if unread is None else store_error(unread, self.path)
        return None

    def close(self) -> None:
        """Let go of it. To be called once SQLite has closed it."""
        os.close(self.descriptor)

    def undo(self) -> None:
        """Remove the file if it was made here and is still empty."""
        if self._made and os.fstat(self.descriptor).st_size == 0:
            self.path.unlink(missing_ok=True)


def bytes_on_disk(path: Path) -> int:
    """Of the database and the files beside it. Raises StoreError."""
    files = [path, *(Path(f"{path}{suffix}") for suffix in ("-wal", "-shm"))]
    try:
        return sum(file.stat().st_size for file in files if file.exists())
    except OSError as error:
        raise store_error(error, path) from error


@contextmanager
def kept_from_brokers(path: Path) -> Iterator[bool]:
    """False: a broker has the file. True: none has, and none can begin while this lasts.

    For a command that only reads, and in a process that has no broker. Raises StoreError.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise store_error(error, path) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


def _open(path: Path) -> tuple[int, bool]:
    """The descriptor, and whether the file is new."""
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
    except FileExistsError:
        return os.open(path, os.O_RDWR), False
    sync_directory(path.parent)
    return descriptor, True
