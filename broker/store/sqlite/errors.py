"""Errors of SQLite and of the operating system, as the StoreErrors that callers know."""

from __future__ import annotations

import errno
import os
import sqlite3
import tempfile
import time
from pathlib import Path

from broker.errors import (
    StoreBusy,
    StoreCorrupt,
    StoreDenied,
    StoreError,
    StoreFull,
    StoreUnavailable,
)

ASK_THE_KERNEL = "the disk fails; the kernel's messages (dmesg) say more"
CHECK_OWNER = "check the owner and mode of it and its directory, and that the disk is not read-only"

MISFIT = (TypeError, AttributeError, ValueError)
"""What Python says where damage made a number of a text, or nothing of a number: SQLite sees to the
kind of a value when it is written, and not when it is read."""
NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})
MAYBE_NO_SPACE = frozenset(
    {sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE, sqlite3.SQLITE_CANTOPEN}
)
"""What SQLite says when a quota is used up, or when there is no room for a file beside the database
or for more of it. It says the same of a disk that fails, and Python does not tell the errno."""
PROBE_BYTES = 1 << 16
"""More than SQLite ever writes in one call."""
READ_S = 2.0
"""How long to look for what the disk cannot read: 1-4 GB of what the kernel holds, 200 MB else."""


def read_error(error: sqlite3.Error, path: Path) -> StoreError:
    """The same in a process that has no lock on the database, or has it no more.

    SQLite calls a database malformed also when the disk cannot read a page of it; so the file is
    read. In the broker that would drop SQLite's locks: see `DatabaseFile.cannot_be_read`.
    """
    failure = store_error(error, path)
    if isinstance(failure, StoreCorrupt):
        return disk_failure(path) or failure
    return failure


def disk_failure(path: Path) -> StoreError | None:
    """Why the file cannot be read, if it cannot. Not in the broker's process, as `read_error`."""
    try:
        with path.open("rb", buffering=0) as file:
            unread = read_failure(file.fileno())
    except OSError as cannot_open:
        return store_error(cannot_open, path)
    return None if unread is None else store_error(unread, path)


def read_failure(descriptor: int) -> OSError | None:
    """Why the file cannot be read to its end; None: it can, as far as one comes in READ_S."""
    position, deadline = 0, time.monotonic() + READ_S
    try:
        while part := os.pread(descriptor, 1 << 20, position):
            position += len(part)
            if time.monotonic() > deadline:
                break
    except OSError as error:
        return error
    return None


def is_damage(error: Exception) -> bool:
    """Whether it says that what is stored is not what was written."""
    if isinstance(error, StoreCorrupt):
        return True
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK) & 0xFF
    return code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_TOOBIG)


def store_error(error: sqlite3.Error | OSError, path: Path) -> StoreError:
    """What to raise for it; `path` is the database that the message names."""
    if isinstance(error, OSError):
        said = error.strerror or str(error)
        match error.errno:
            case errno.ENOSPC | errno.EDQUOT:
                return StoreFull(f"{path}: no space left for the log ({said})")
            case errno.EACCES | errno.EPERM | errno.EROFS:
                return StoreDenied(f"{path} cannot be written: {said}; {CHECK_OWNER}")
            case errno.EIO:
                return StoreUnavailable(f"{path}: {said}: {ASK_THE_KERNEL}")
            case _:
                return StoreUnavailable(f"{path}: {said}")
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    if code in MAYBE_NO_SPACE and no_space_beside(path):
        return StoreFull(f"{path}: no space left for the log")
    match code & 0xFF:
        case sqlite3.SQLITE_FULL:
            return StoreFull(f"{path}: no space left for the log")
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return StoreCorrupt(f"{path} is damaged: {error}")
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return StoreBusy(f"{path} is locked by another program")
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM:
            return StoreDenied(f"{path} cannot be written: {error}; {CHECK_OWNER}")
        case sqlite3.SQLITE_IOERR:
            return StoreUnavailable(f"{path}: {error}: {ASK_THE_KERNEL}")
        case _:
            return StoreUnavailable(f"{path}: {error}")


def misfit(error: Exception, path: Path) -> StoreCorrupt:
    """What to raise for one of MISFIT. It names the error, which may be our own mistake."""
    said = f"{type(error).__name__}: {error}"
    return StoreCorrupt(f"{path} is damaged: a value in it is of another kind ({said})")


def no_space_beside(path: Path) -> bool:
    """Whether a small file beside the database finds no space, of the disk or of a quota. The file
    is removed. False also if nothing can be written there for another reason."""
    try:
        descriptor, name = tempfile.mkstemp(prefix="space-", dir=path.parent)
    except OSError as error:
        return error.errno in NO_SPACE
    try:
        written = os.write(descriptor, bytes(PROBE_BYTES))
        os.fsync(descriptor)
    except OSError as error:
        return error.errno in NO_SPACE
    finally:
        os.close(descriptor)
        os.unlink(name)
    return written < PROBE_BYTES
