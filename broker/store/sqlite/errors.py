"""Errors of SQLite and of the operating system, as the StoreErrors that callers know."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from broker.errors import StoreCorrupt, StoreError, StoreFull, StoreUnavailable


class Busy(StoreUnavailable):
    """Another program kept its lock on the database. Nothing was begun: try again."""


def store_error(error: sqlite3.Error | OSError, path: Path) -> StoreError:
    """What to raise for it; `path` is the database that the message names."""
    if isinstance(error, OSError):
        return StoreUnavailable(f"{path}: {error.strerror or error}")
    match getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF:
        case sqlite3.SQLITE_FULL:
            return StoreFull(f"{path}: no space left for the log")
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return StoreCorrupt(f"{path}: {error}; `pubsub check` says more")
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return Busy(f"{path} is locked by another process")
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN:
            return StoreUnavailable(f"{path} or its directory cannot be written: {error}")
        case _:
            return StoreUnavailable(f"{path}: {error}")
