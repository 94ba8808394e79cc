"""Transactions, what a failed one leaves, and the beginning and end of a run."""

from __future__ import annotations

import asyncio
import resource
import shutil
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from broker import cache
from broker.documents import CursorDocument, Put, SessionDocument
from broker.errors import StoreBusy, StoreFull, StoreUnavailable
from broker.message import Message, Offset
from broker.store.sqlite import writer
from broker.store.sqlite.files import opening
from broker.store.sqlite.gaps import OFFSETS_LOST_MAX
from broker.store.sqlite.offsets import RESERVED_AT_ONCE
from broker.store.sqlite.store import SqliteStore
from tests.support.messages import message, numbered
from tests.support.sqlite import ask, in_writer, opened, problems
from tests.support.stores import payloads, read_all, tail_until

RESERVED = RESERVED_AT_ONCE - 1
"""Up to here offsets are reserved with the first message."""


def wal_of(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def crashed_copy(store: SqliteStore, directory: Path) -> Path:
    """The database as it would be if the broker were killed now."""
    directory.mkdir()
    for file in (store.path, wal_of(store.path)):
        shutil.copy(file, directory)
    return directory / store.path.name


# Commits


async def test_commits_are_fsynced_unless_nothing_needs_it(
    sqlite: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def synchronous() -> int:
        level: int = await in_writer(
            sqlite, lambda database: database.execute("PRAGMA synchronous").fetchone()[0]
        )
        return level

    full, normal = 2, 1
    await sqlite.append([message()])
    assert await synchronous() == full
    await sqlite.append([message(qos=0)], durable=False)
    assert await synchronous() == normal
    await sqlite.append([message()])
    assert await synchronous() == full

    monkeypatch.setattr(writer, "UNSYNCED_MAX", 10)
    await sqlite.append(numbered(9), durable=False)
    assert await synchronous() == normal
    await sqlite.append(numbered(1), durable=False)
    assert await synchronous() == full
    await sqlite.append(numbered(1), durable=False)
    assert await synchronous() == normal


async def test_a_commit_of_nothing_fsyncs_what_was_committed_before(sqlite: SqliteStore) -> None:
    """P4. SQLite does that only for a commit that wrote a page. Readers see no change."""
    await sqlite.append([message(qos=0)], durable=False)
    before = wal_of(sqlite.path).stat().st_size
    await sqlite.append((), (), durable=False)
    assert wal_of(sqlite.path).stat().st_size == before
    await sqlite.append((), ())
    assert wal_of(sqlite.path).stat().st_size > before
    level = await in_writer(sqlite, lambda db: db.execute("PRAGMA synchronous").fetchone())
    assert level == (2,)
    assert sqlite.log_start == 1


async def test_durability_os_leaves_the_disk_to_the_kernel(tmp_path: Path) -> None:
    async with opened(tmp_path / "pubsub.db", durability="os") as store:
        await store.append([message()])
        rows = await in_writer(
            store, lambda database: database.execute("PRAGMA synchronous").fetchall()
        )
    assert rows == [(1,)]


async def test_caches_of_names_are_bounded(
    sqlite: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "COUNT_MAX", 10)
    monkeypatch.setattr("broker.store.sqlite.searching.filters.FILTERS_SIZE_MAX", 10)
    written = [message(str(i), f"t/{i % 37}", publisher=f"p{i % 23}") for i in range(2000)]
    await sqlite.append(written)
    assert await read_all(sqlite) == written
    for i in range(37):
        assert await read_all(sqlite, [f"t/{i}"]) == written[i::37]
    assert await read_all(sqlite, ["t/+"]) == written
    assert len(sqlite._writer._names.pairs) <= 10
    assert all(len(reader._names) <= 10 for _, reader in sqlite._lanes.readers)


# Failures (S7)


async def test_a_full_disk_fails_the_append_and_the_store_recovers(sqlite: SqliteStore) -> None:
    await sqlite.append([message("before", "old")])

    async def limit(pages: int) -> None:
        await in_writer(
            sqlite, lambda database: database.execute(f"PRAGMA max_page_count = {pages}")
        )

    await limit(1)
    refused = [message(bytes(100_000), "new", publisher="new") for _ in range(3)]
    with pytest.raises(StoreFull, match="no space"):
        await sqlite.append(refused, [Put(SessionDocument("sub1", 1, 1, None))])
    assert payloads(await read_all(sqlite)) == [b"before"]
    assert await sqlite.scan(SessionDocument) == []

    await limit(1_000_000)
    await sqlite.append([message("after", "new", publisher="new")])
    assert payloads(await read_all(sqlite, ["new"])) == [b"after"]
    assert problems(sqlite.path) == []


@contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    """Writes beyond fail with EFBIG, to SQLite an input/output error."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_after_a_failed_write_nothing_is_written_until_opened_again(
    sqlite: SqliteStore,
) -> None:
    await sqlite.append([message("before")])
    with no_file_larger_than(200_000), pytest.raises(StoreUnavailable) as caught:
        await sqlite.append([message(bytes(300_000))])
    assert not isinstance(caught.value, StoreFull)
    with pytest.raises(StoreUnavailable, match="no more writes since"):
        await sqlite.append([message("x")])
    assert payloads(await read_all(sqlite)) == [b"before"]
    await sqlite.close()
    await sqlite.open()
    await sqlite.append([message("after")])
    assert payloads(await read_all(sqlite)) == [b"before", b"after"]


async def test_a_lock_of_another_program_is_waited_for_and_then_said(
    sqlite: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "LOCK_WAIT_MS", 10)
    await sqlite.append([message("before")])
    with closing(sqlite3.connect(sqlite.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreBusy, match="locked by another program"):
            await sqlite.append([message()])
        with pytest.raises(StoreBusy, match="locked by another program"):
            await sqlite.trim(Offset(1 << 20))
        assert payloads(await read_all(sqlite)) == [b"before"]
        other.execute("ROLLBACK")
    await sqlite.append([message("after")])
    assert payloads(await read_all(sqlite)) == [b"before", b"after"]


async def test_a_failure_that_nobody_waited_for_leaves_an_unclean_stop(
    sqlite: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def fail(part: Sequence[Message]) -> int:
        begun.set()
        assert go_on.wait(10)
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(sqlite._writer, "_insert", fail)
    task = asyncio.create_task(sqlite.append([message()]))
    await asyncio.to_thread(begun.wait, 10)
    task.cancel()
    closed = asyncio.create_task(sqlite.close())
    await asyncio.sleep(0)
    go_on.set()
    await closed
    assert ask(sqlite.path, "SELECT stopped_at_us FROM broker_runs") == [(None,)]


# Starting and stopping (S2, S9)


def boot(monkeypatch: pytest.MonkeyPatch, boot_id: str | None) -> None:
    monkeypatch.setattr(opening, "boot_id", lambda: boot_id)


async def offset_after(path: Path, monkeypatch: pytest.MonkeyPatch, boot_id: str | None) -> int:
    """The offset that a broker started on a copy of the database gives out next."""
    boot(monkeypatch, boot_id)
    async with opened(path) as store:
        assert store.high_watermark == 3
        only = message()
        await store.append([only])
        assert problems(store.path) == []
        assert await tail_until(store, 1, only.offset) == await read_all(store)
    return only.offset


@pytest.mark.parametrize("after", ["the same boot", "another boot", None])
async def test_a_gap_of_offsets_is_left_after_an_unclean_stop_only(
    sqlite: SqliteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: str | None
) -> None:
    await sqlite.close()
    boot(monkeypatch, "the same boot")
    await sqlite.open()
    await sqlite.append(numbered(3))
    crashed = crashed_copy(sqlite, tmp_path / "crashed")
    await sqlite.close()
    assert await offset_after(crashed, monkeypatch, after) == RESERVED + OFFSETS_LOST_MAX + 1
    assert await offset_after(sqlite.path, monkeypatch, after) == 4, "stopped cleanly"


async def test_gaps_count_neither_as_messages_nor_as_lag(
    sqlite: SqliteStore, tmp_path: Path
) -> None:
    """Also two at the end of the log, and one that the log start or a cursor stands in."""

    def cursor(offset: int) -> CursorDocument:
        return CursorDocument("sub1", Offset(offset), Offset(offset), 1, b"")

    async def counts(store: SqliteStore) -> list[object]:
        view = "SELECT cursor, messages_above_cursor FROM lag"
        lag = await in_writer(store, lambda database: database.execute(view).fetchone())
        return [(await store.stats()).messages, lag]

    await sqlite.append(
        numbered(3),
        [Put(SessionDocument("sub1", 1, 1, None)), Put(cursor(1))],
    )
    crashed = crashed_copy(sqlite, tmp_path / "once")
    async with opened(crashed) as store:
        assert await counts(store) == [3, (1, 2)]
        twice = crashed_copy(store, tmp_path / "twice")
    async with opened(twice) as store:
        assert await counts(store) == [3, (1, 2)]
        await store.append(numbered(5))
        newest = RESERVED + 2 * OFFSETS_LOST_MAX + 5
        assert store.high_watermark == newest
        assert await counts(store) == [8, (1, 7)]
        again = crashed_copy(store, tmp_path / "again")
    async with opened(again) as store:
        await store.append(numbered(2))
        assert await counts(store) == [10, (1, 9)]
        await store.append((), [Put(cursor(newest))])
        assert await counts(store) == [10, (newest, 2)]
        await store.append((), [Put(cursor(1000))])
        assert await counts(store) == [10, (1000, 7)]
        await store.trim(Offset(newest - 1))
        assert await counts(store) == [4, (1000, 4)]
        assert problems(store.path) == []
    async with opened(again) as store:
        assert await counts(store) == [4, (1000, 4)]
        await store.append(numbered(1))
        assert await counts(store) == [5, (1000, 5)]


async def test_what_an_unclean_stop_left_unsynced_takes_nothing_with_it(
    sqlite: SqliteStore, tmp_path: Path
) -> None:
    """P6: after a failed fsync the kernel may show what the disk never got."""
    await sqlite.append(numbered(3))
    crashed = crashed_copy(sqlite, tmp_path / "crashed")
    unsynced = wal_of(crashed).read_bytes()
    async with opened(crashed) as store:
        await store.append([message("acknowledged")])
        without_power = crashed_copy(store, tmp_path / "without power")
    wal = wal_of(without_power).read_bytes()
    if wal.startswith(unsynced):
        wal_of(without_power).write_bytes(bytes(len(unsynced)) + wal[len(unsynced) :])
    async with opened(without_power) as store:
        assert b"acknowledged" in payloads(await read_all(store))


async def test_opening_does_not_depend_on_the_number_of_messages(sqlite: SqliteStore) -> None:
    """Counted in virtual machine steps of SQLite, which no other load on the machine changes."""
    await sqlite.append(numbered(20_000))
    await sqlite.close()
    with closing(sqlite3.connect(sqlite.path, isolation_level=None)) as connection:
        steps = 0

        def step() -> int:
            nonlocal steps
            steps += 1
            return 0

        connection.set_progress_handler(step, 10)
        started = writer.Writer(connection, sqlite.path)
        started.start("boot", "1", Offset(0))
    assert (started.log_start, started.high_watermark) == (1, 20_000)
    assert steps < 100
