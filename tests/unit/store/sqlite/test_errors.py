"""Which StoreError an error of SQLite or of the operating system becomes."""

from __future__ import annotations

import errno
import os
import sqlite3
import time
from pathlib import Path

import pytest

from broker.errors import (
    StoreBusy,
    StoreCorrupt,
    StoreDenied,
    StoreError,
    StoreFull,
    StoreUnavailable,
)
from broker.store.sqlite.errors import no_space_beside, read_error, read_failure, store_error


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (sqlite3.SQLITE_FULL, StoreFull),
        (sqlite3.SQLITE_CORRUPT, StoreCorrupt),
        (sqlite3.SQLITE_CORRUPT_INDEX, StoreCorrupt),
        (sqlite3.SQLITE_NOTADB, StoreCorrupt),
        (sqlite3.SQLITE_BUSY, StoreBusy),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, StoreBusy),
        (sqlite3.SQLITE_LOCKED, StoreBusy),
        (sqlite3.SQLITE_READONLY, StoreDenied),
        (sqlite3.SQLITE_CANTOPEN, StoreDenied),
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


@pytest.mark.parametrize(
    ("code", "kind", "advice"),
    [
        (errno.EIO, StoreUnavailable, "dmesg"),
        (errno.ENOSPC, StoreFull, "no space left"),
        (errno.EDQUOT, StoreFull, "no space left"),
        (errno.EACCES, StoreDenied, "owner"),
        (errno.EROFS, StoreDenied, "read-only"),
        (errno.EMFILE, StoreUnavailable, "Too many open files"),
    ],
)
def test_an_error_of_the_operating_system_says_what_that_says_and_what_to_do(
    code: int, kind: type[StoreError], advice: str
) -> None:
    found = store_error(OSError(code, os.strerror(code)), Path("pubsub.db"))
    assert type(found) is kind
    assert str(found).startswith("pubsub.db")
    assert os.strerror(code) in str(found)
    assert advice in str(found)


@pytest.mark.parametrize(
    "said", [sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE, sqlite3.SQLITE_CANTOPEN]
)
@pytest.mark.parametrize(
    ("code", "kind"),
    [(errno.ENOSPC, StoreFull), (errno.EDQUOT, StoreFull), (errno.EIO, StoreUnavailable)],
)
@pytest.mark.parametrize("call", ["open", "write", "fsync"])
def test_what_sqlite_does_not_tell_a_file_beside_the_database_does(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    said: int,
    code: int,
    kind: type[StoreError],
    call: str,
) -> None:
    def fail(*args: object) -> int:
        raise OSError(code, os.strerror(code))

    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = said
    with monkeypatch.context() as patch:
        patch.setattr(f"broker.store.sqlite.errors.os.{call}", fail)
        found = store_error(error, tmp_path / "pubsub.db")
    assert isinstance(found, kind)
    assert isinstance(found, StoreFull) == (kind is StoreFull)
    assert list(tmp_path.iterdir()) == []


def test_where_there_is_space_nothing_is_left_of_the_question(tmp_path: Path) -> None:
    assert not no_space_beside(tmp_path / "pubsub.db")
    assert list(tmp_path.iterdir()) == []
    assert not no_space_beside(tmp_path / "nowhere" / "pubsub.db")


def test_what_the_disk_cannot_read_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite says that it is malformed."""
    path = tmp_path / "pubsub.db"
    path.write_bytes(bytes(3 << 20))
    malformed = sqlite3.DatabaseError("database disk image is malformed")
    malformed.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    assert type(read_error(malformed, path)) is StoreCorrupt

    def pread(descriptor: int, size: int, position: int) -> bytes:
        if position > 1 << 20:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return bytes(size)

    monkeypatch.setattr(os, "pread", pread)
    found = read_error(malformed, path)
    assert type(found) is StoreUnavailable
    assert "Input/output error: the disk fails" in str(found)
    assert "malformed" not in str(found)


def test_how_long_is_looked_for_it_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "monotonic", iter(range(100)).__next__)
    monkeypatch.setattr(os, "pread", lambda *_: b"for ever")
    assert read_failure(0) is None
