"""Which StoreError an error of SQLite or of the operating system becomes."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from broker.errors import StoreCorrupt, StoreError, StoreFull, StoreUnavailable
from broker.store.sqlite.errors import Busy, store_error


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (sqlite3.SQLITE_FULL, StoreFull),
        (sqlite3.SQLITE_CORRUPT, StoreCorrupt),
        (sqlite3.SQLITE_CORRUPT_INDEX, StoreCorrupt),
        (sqlite3.SQLITE_NOTADB, StoreCorrupt),
        (sqlite3.SQLITE_BUSY, Busy),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, Busy),
        (sqlite3.SQLITE_LOCKED, Busy),
        (sqlite3.SQLITE_READONLY, StoreUnavailable),
        (sqlite3.SQLITE_CANTOPEN, StoreUnavailable),
        (sqlite3.SQLITE_IOERR_FSYNC, StoreUnavailable),
        (None, StoreUnavailable),
    ],
)
def test_the_code_decides_and_the_file_is_named(code: int | None, kind: type[StoreError]) -> None:
    """Extended codes as the code that they belong to."""
    error = sqlite3.OperationalError("what SQLite says")
    if code is not None:
        error.sqlite_errorcode = code
    found = store_error(error, Path("/data/pubsub.db"))
    assert type(found) is kind
    assert "/data/pubsub.db" in str(found)


def test_an_error_of_the_operating_system_says_what_that_says() -> None:
    found = store_error(OSError(5, "Input/output error"), Path("pubsub.db"))
    assert type(found) is StoreUnavailable
    assert str(found) == "pubsub.db: Input/output error"
