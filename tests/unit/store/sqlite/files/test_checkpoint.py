"""Checkpoints: what commits wait for, and what is done beside them; with either kind of SQLite."""

from __future__ import annotations

import asyncio
import errno
import os
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from broker.documents import CursorDocument, Put, SessionDocument
from broker.errors import StoreError, StoreUnavailable
from broker.message import Message, Offset
from broker.store.sqlite import writer
from broker.store.sqlite.files import checkpoint, wal_growth
from broker.store.sqlite.files.wal import read_index
from broker.store.sqlite.store import SqliteStore
from tests.support.messages import message
from tests.support.sqlite import ask, opened, problems
from tests.support.stores import payloads, read_all


@pytest.fixture(params=[False, True], ids=["between commits", "beside commits"])
async def sqlite(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[SqliteStore]:
    """Beside commits with an older SQLite, too: its mistake needs more bad luck than a test has."""
    monkeypatch.setattr(checkpoint, "COPIES_BESIDE", request.param)
    async with opened(tmp_path / "pubsub.db") as store:
        yield store


def wal_of(store: SqliteStore) -> Path:
    return store.path.with_name(f"{store.path.name}-wal")


def pages_waiting(store: SqliteStore) -> int:
    """Pages in the write-ahead log that are not in the database."""
    index = read_index(store.path.with_name(f"{store.path.name}-shm"))
    assert index is not None
    return index.committed - index.in_database


class BusyDisk:
    """Takes the place of `os.fdatasync`: for each sync of the database, it has the store append
    the next batch meanwhile."""

    def __init__(self, store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
        self._store = store
        self._loop = asyncio.get_running_loop()
        self.batches: list[list[Message]] = []
        self.waiting: list[int] = []
        """Pages that were not in the database, at each sync of it."""
        self.syncs = 0
        monkeypatch.setattr(os, "fdatasync", self._sync)

    def _sync(self, descriptor: int) -> None:
        self.syncs += 1
        if descriptor == self._store._file.descriptor:
            self.waiting.append(pages_waiting(self._store))
            if self.batches:
                append = self._store.append(self.batches.pop(0))
                asyncio.run_coroutine_threadsafe(append, self._loop).result(10)


async def test_commits_go_on_while_the_database_is_synced(
    sqlite: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = BusyDisk(sqlite, monkeypatch)
    disk.batches = [[message("meanwhile")]]
    await sqlite.append([message(bytes(400_000))])
    await sqlite._checkpoints.run()
    [waiting] = disk.waiting
    assert waiting <= 1, "what is synced then was copied before"
    assert pages_waiting(sqlite) == 0
    assert payloads(await read_all(sqlite)) == [bytes(400_000), b"meanwhile"]
    assert problems(sqlite.path) == []


async def test_what_was_written_meanwhile_is_copied_and_synced_too_before_commits_wait(
    sqlite: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = BusyDisk(sqlite, monkeypatch)
    sizes = [4_000_000, 3_000_000, 20_000]
    disk.batches = [[message(bytes(size))] for size in sizes]
    await sqlite.append([message(bytes(4_000_000))])
    left: list[int] = []
    complete = sqlite._checkpoints._complete

    def recorded() -> None:
        left.append(pages_waiting(sqlite))
        complete()

    monkeypatch.setattr(sqlite._checkpoints, "_complete", recorded)
    await sqlite._checkpoints.run()
    assert len(disk.waiting) == 3
    [few] = left
    assert 0 < few < 50
    assert pages_waiting(sqlite) == 0
    assert problems(sqlite.path) == []


async def test_a_disk_slower_than_what_is_written_does_not_keep_a_checkpoint_from_its_end(
    sqlite: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = BusyDisk(sqlite, monkeypatch)
    disk.batches = [[message(bytes(3_000_000))] for _ in range(20)]
    await sqlite.append([message(bytes(4_000_000))])
    await sqlite._checkpoints.run()
    assert len(disk.waiting) == checkpoint.ROUNDS_MAX
    assert pages_waiting(sqlite) == 0


async def test_a_copy_between_commits_leaves_the_sync_of_the_database_for_later(
    sqlite: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite syncs it when every page is copied. So it must not be that, whoever commits."""
    monkeypatch.setattr(checkpoint, "COPIES_BESIDE", False)
    results: list[tuple[int, int]] = []
    copy = sqlite._writer.checkpoint

    def recorded(mode: str) -> tuple[int, int]:
        results.append(copy(mode))
        return results[-1]

    monkeypatch.setattr(sqlite._writer, "checkpoint", recorded)
    await sqlite.append([message(bytes(400_000))])
    await sqlite._checkpoints.run()
    (pages, copied), (all_pages, all_copied) = results
    assert 90 < copied < pages
    assert all_copied == all_pages >= pages


async def test_what_nobody_has_synced_yet_is_synced_before_commits_wait(
    sqlite: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Messages at QoS 0: SQLite's own sync of the write-ahead log would have to write them."""
    monkeypatch.setattr(checkpoint, "COPIES_BESIDE", False)
    synced: list[int] = []
    monkeypatch.setattr(
        os, "fdatasync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino)
    )
    await sqlite.append([message(bytes(400_000), qos=0)], durable=False)
    await sqlite._checkpoints.run()
    assert synced == [wal_of(sqlite).stat().st_ino, sqlite.path.stat().st_ino]


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC], ids=["EIO", "ENOSPC"])
async def test_after_a_failed_sync_nothing_more_is_written(
    sqlite: SqliteStore, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    """The kernel may have told this descriptor of it, and tells SQLite's nothing. (S7)"""
    await sqlite.append([message("before")])

    def fail(descriptor: int) -> None:
        raise OSError(error, os.strerror(error))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fail)
        with pytest.raises(StoreError):
            await sqlite._checkpoints.run()
    with pytest.raises(StoreUnavailable, match="no more writes since"):
        await sqlite.append([message("x")])
    assert payloads(await read_all(sqlite)) == [b"before"]


async def test_the_write_ahead_log_is_folded_in_while_the_broker_runs(
    sqlite: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "CHECKPOINT_PAGES", 100)
    largest = 0
    for _ in range(100):
        await sqlite.append([message(bytes(10_000)) for _ in range(10)])
        largest = max(largest, wal_of(sqlite).stat().st_size)
    assert sqlite.path.stat().st_size > 5_000_000
    assert largest < 4_000_000


async def test_a_full_disk_hinders_neither_checkpoints_nor_the_stop(
    sqlite: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every checkpoint finds no space: what it would have moved stays in the write-ahead log."""

    class FullDisk:
        def __init__(self, connection: sqlite3.Connection) -> None:
            self._connection = connection

        def __getattr__(self, name: str) -> object:
            return getattr(self._connection, name)

        def execute(self, sql: str, parameters: Sequence[object] = ()) -> sqlite3.Cursor:
            if "wal_checkpoint" in sql or "UPDATE broker_runs" in sql:
                error = sqlite3.OperationalError("database or disk is full")
                error.sqlite_errorcode = sqlite3.SQLITE_FULL
                raise error
            return self._connection.execute(sql, parameters)

    monkeypatch.setattr(checkpoint, "CHECKPOINT_PAGES", 1)
    full: Any = FullDisk(sqlite._writer.connection)
    monkeypatch.setattr(sqlite._writer, "connection", full)
    for i in range(5):
        await sqlite.append([message(str(i))])
    await sqlite.close()
    await sqlite.open()
    assert payloads(await read_all(sqlite)) == [b"0", b"1", b"2", b"3", b"4"]


async def test_a_reader_that_keeps_the_write_ahead_log_growing_is_told(
    sqlite: SqliteStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(wal_growth, "FIRST_BYTES", 4 * wal_growth.PAGE_BYTES)
    sqlite._checkpoints._growth = wal_growth.WalGrowth(sqlite.path, commits_wait=True)
    with closing(sqlite3.connect(f"file:{sqlite.path}?mode=ro", uri=True)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM messages").fetchall()
        await sqlite.append([message(bytes(20_000))])
        await sqlite._checkpoints.run()
        [told] = caplog.messages
        assert told.startswith("pubsub.db-wal has grown to 0 MiB, as another program has an open")
        assert payloads(await read_all(sqlite)) == [bytes(20_000)]
    await sqlite._checkpoints.run()
    assert "pubsub.db-wal is in the database again" in caplog.messages[1]
    await sqlite._checkpoints.run()
    assert len(caplog.messages) == 2


async def test_a_lock_of_another_program_hinders_neither_checkpoints_nor_the_stop(
    sqlite: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is in the write-ahead log stays there, and the next start takes it for unclean."""
    monkeypatch.setattr(writer, "BRIEF_LOCK_WAIT_MS", 10)
    monkeypatch.setattr(checkpoint, "WAL_PAGES_MAX", 0)
    await sqlite.append([message("before")])
    with closing(sqlite3.connect(sqlite.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        await sqlite._checkpoints.run()
        await sqlite.close()
        other.execute("ROLLBACK")
    assert ask(sqlite.path, "SELECT stopped_at_us FROM broker_runs") == [(None,)]
    await sqlite.open()
    assert payloads(await read_all(sqlite)) == [b"before"]


async def test_a_mistake_in_a_checkpoint_is_logged_and_hinders_nobody(
    sqlite: SqliteStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def mistake(_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(checkpoint, "CHECKPOINT_PAGES", 1)
    monkeypatch.setattr(checkpoint.Checkpoints, "_complete", mistake)
    for number in range(3):
        await sqlite.append([message(str(number))])
    await sqlite.close()
    assert caplog.messages
    assert {record.levelname for record in caplog.records} == {"CRITICAL"}
    assert all(record.exc_info for record in caplog.records)


@pytest.mark.parametrize(
    ("commits", "messages", "payload_bytes", "cursors"),
    [(300, 1, 128, 0), (300, 1, 128, 1), (30, 20, 128, 0), (10, 500, 128, 100), (5, 20, 65_536, 1)],
)
async def test_how_much_was_written_is_known_about(
    sqlite: SqliteStore, commits: int, messages: int, payload_bytes: int, cursors: int
) -> None:
    """It decides when a checkpoint begins. Too many of these would hold up single messages: while
    one runs, each is handed over to the writer's thread."""
    names = [f"sub{number}" for number in range(cursors)]
    await sqlite.append([], [Put(SessionDocument(name, 60, 0, None)) for name in names])
    before, counted = pages_waiting(sqlite), sqlite._writer.pages
    for offset in range(commits):
        at = Offset(offset)
        moved = [Put(CursorDocument(name, at, at, 1, b"")) for name in names]
        await sqlite.append([message(bytes(payload_bytes)) for _ in range(messages)], moved)
    pages = pages_waiting(sqlite) - before
    assert 0.7 < (sqlite._writer.pages - counted) / pages < 1.4, pages
