"""Whose fault it was that a copy failed."""

from __future__ import annotations

import errno
import sqlite3
from pathlib import Path

import pytest

from broker.errors import StoreCorrupt, StoreDenied, StoreError, StoreFull
from cli.care.copying import errors_named


def sqlite_error(kind: type[sqlite3.Error], code: int) -> sqlite3.Error:
    error = kind("it fails")
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize(
    ("error", "named", "says"),
    [
        (sqlite_error(sqlite3.DatabaseError, sqlite3.SQLITE_CORRUPT), StoreCorrupt, "old is damag"),
        (
            sqlite_error(sqlite3.IntegrityError, sqlite3.SQLITE_CONSTRAINT),
            StoreCorrupt,
            "new was not made: it fails",
        ),
        (StoreCorrupt("offset 7"), StoreCorrupt, "new was not made: offset 7"),
        (sqlite_error(sqlite3.OperationalError, sqlite3.SQLITE_FULL), StoreFull, "new: no space"),
        (OSError(errno.ENOSPC, "full"), StoreFull, "new: no space"),
        (PermissionError(errno.EACCES, "no"), StoreDenied, "new cannot be written"),
    ],
)
def test_damage_is_of_what_is_read_and_all_else_of_what_is_written(
    tmp_path: Path, error: Exception, named: type[StoreError], says: str
) -> None:
    (tmp_path / "old").touch()
    with pytest.raises(named, match=says), errors_named(tmp_path / "old", tmp_path / "new"):
        raise error
