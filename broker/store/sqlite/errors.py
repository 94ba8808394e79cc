"""Errors of SQLite and of the operating system, as the StoreErrors that callers know."""

from __future__ import annotations

import errno
import sqlite3
from pathlib import Path

from broker.errors import (
    StoreCorrupt,
    StoreDenied,
    StoreError,
    StoreFull,
    StoreInUse,
    StoreUnavailable,
)

ASK_THE_KERNEL = "the disk fails; the kernel's messages (dmesg) say more"
CHECK_OWNER = "check the owner and mode of it and its directory, and that the disk is not read-only"


class Busy(StoreInUse):
    """Another program kept its lock on the database. Nothing was begun: try again."""


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
    match getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF:
        case sqlite3.SQLITE_FULL:
            return StoreFull(f"{path}: no space left for the log")
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return StoreCorrupt(f"{path} is damaged: {error}")
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return Busy(f"{path} is locked by another program")
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM:
            return StoreDenied(f"{path} cannot be written: {error}; {CHECK_OWNER}")
        case sqlite3.SQLITE_IOERR:
            return StoreUnavailable(f"{path}: {error}: {ASK_THE_KERNEL}")
        case _:
            return StoreUnavailable(f"{path}: {error}")
