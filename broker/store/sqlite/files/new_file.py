"""A new database file: there whole and on the disk, or not at all.

It is made under the name PARTIAL, without a journal and without a sync: nothing is lost with it.
When it is whole it is synced and gets its name. What fails removes it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from broker.errors import StoreInUse
from broker.store.sqlite.files.schema import sync_directory

PARTIAL = ".partial"
"""Added to the name while it is made."""
CACHE_KIB = 32_000


@dataclass(frozen=True, slots=True)
class NewFile:
    """A database while it is made. `connection` is in autocommit mode."""

    connection: sqlite3.Connection
    descriptor: int

    def sync(self) -> int:
        """Put on the disk what was written so far; how many bytes the file has. Raises OSError."""
        os.fdatasync(self.descriptor)
        return os.fstat(self.descriptor).st_size


@contextmanager
def new_file(path: Path, make_room: Callable[[], object] | None = None) -> Iterator[NewFile]:
    """An empty database, which becomes `path` at the end.

    `make_room` is called right before that, and then what is at `path` is replaced, by a file of
    the owner of its directory: root may put it there for the user of the broker. None: raises
    FileExistsError if something is there. Raises StoreInUse: somebody else is making it; OSError.
    """
    partial = Path(f"{path}{PARTIAL}")
    if make_room is None:
        _require_none(path)
    descriptor = os.open(partial, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StoreInUse(f"{partial} is being made by another command") from error
        try:
            os.ftruncate(descriptor, 0)
            if make_room is not None and os.geteuid() == 0:
                directory = path.parent.stat()
                os.fchown(descriptor, directory.st_uid, directory.st_gid)
            uri = f"{partial.absolute().as_uri()}?mode=rw"
            with closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as connection:
                connection.execute("PRAGMA journal_mode = OFF")
                connection.execute("PRAGMA synchronous = OFF")
                connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
                yield NewFile(connection, descriptor)
            os.fsync(descriptor)
            if make_room is None:
                _require_none(path)
            else:
                make_room()
            partial.rename(path)
            sync_directory(path.parent)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
    finally:
        os.close(descriptor)


def _require_none(path: Path) -> None:
    if os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
