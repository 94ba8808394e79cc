"""What only the store as a whole can do wrong: one file, one hand on it, crashes, copies."""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from broker.documents import Delete, Operation, SessionDocument
from broker.errors import StoreCorrupt, StoreUnavailable
from broker.message import Message, Offset
from broker.store import Read, Skipped
from broker.store.sqlite import opening, reader, writer
from broker.store.sqlite import store as sqlite_module
from broker.store.sqlite.store import SqliteStore
from tests.support.messages import message, numbered
from tests.support.sqlite import ask, change, in_writer, opened, problems
from tests.support.stores import END, payloads, read_all, tail_until

# The file


async def test_a_stopped_store_is_one_file(sqlite: SqliteStore) -> None:
    await sqlite.append(numbered(100))
    await sqlite.close()
    assert [file.name for file in sqlite.path.parent.iterdir()] == ["pubsub.db"]


async def test_history_can_be_read_beside_the_broker_and_after_it(sqlite: SqliteStore) -> None:
    await sqlite.append([message("Rainy", expires_at_us=None)])
    expected = [(1, "2023-11-14T22:13:20.000000Z", "pub1", 1, 0, "t", b"Rainy", None)]
    sql = (
        "SELECT offset, published_at, publisher, qos, retain, topic, payload, expires_at_us"
        " FROM history"
    )
    assert ask(sqlite.path, sql) == expected
    await sqlite.close()
    assert ask(sqlite.path, sql) == expected


CHILD = """
import asyncio, sys
from pathlib import Path
from broker.message import Message
from broker.store.sqlite.store import SqliteStore

async def main():
    store = SqliteStore(Path(sys.argv[1]))
    await store.open()
    while True:
        batch = [Message("weather", b"%d" % i, 1, False, "pub1", i + 1) for i in range(50)]
        await store.append(batch)
        print(batch[-1].offset, flush=True)

asyncio.run(main())
"""


def killed_writer(path: Path) -> int:
    """Write to the store until killed; the last offset that was acknowledged."""
    command = [sys.executable, "-c", CHILD, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        lines = [child.stdout.readline() for _ in range(20)]
        child.kill()
    return int(lines[-1])


async def test_what_was_acknowledged_is_there_after_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "pubsub.db"
    newest = 0
    for _ in range(3):
        acknowledged = await asyncio.to_thread(killed_writer, path)
        ((missing, last),) = ask(
            path,
            "SELECT max(offset) - min(offset) + 1 - count(*), max(offset)"
            f" FROM history WHERE offset > {newest}",
        )
        assert missing == 0
        assert isinstance(last, int)
        assert last >= acknowledged > newest
        async with opened(path) as store:
            assert store.high_watermark == last
            assert problems(path) == []
        newest = last


# Commits in the thread of the caller


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """In which thread each commit was made."""
    found: list[int] = []
    commit = writer.Writer.commit

    def noted(*args: Any, **options: Any) -> Any:
        found.append(threading.get_ident())
        return commit(*args, **options)

    monkeypatch.setattr(writer.Writer, "commit", noted)
    return found


@pytest.mark.parametrize(("took_s", "here"), [(0.0, True), (1.0, False)])
async def test_only_while_the_disk_is_quick_does_the_loop_wait_for_it(
    sqlite: SqliteStore,
    threads: list[int],
    monkeypatch: pytest.MonkeyPatch,
    took_s: float,
    here: bool,
) -> None:
    clock = itertools.count(0.0, took_s)
    monkeypatch.setattr(writer, "perf_counter", lambda: next(clock))
    for _ in range(sqlite_module.QUICK_COMMITS_MIN):
        await sqlite.append([message()])
    assert threading.get_ident() not in threads
    await sqlite.append([message()])
    assert (threads[-1] == threading.get_ident()) is here
    await sqlite.append([message()], durable=False)
    assert threads[-1] != threading.get_ident(), "of those there was none yet"


async def test_one_slow_commit_ends_that(
    sqlite: SqliteStore, threads: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_module, "QUICK_COMMITS_MIN", 1)
    times = iter([0.0, 0.0, 1.0, 3.0, 4.0, 4.0])
    monkeypatch.setattr(writer, "perf_counter", lambda: next(times))
    for _ in range(3):
        await sqlite.append([message()])
    assert [thread == threading.get_ident() for thread in threads] == [False, True, False]


@pytest.mark.usefixtures("quick_disk")
@pytest.mark.parametrize(
    ("large", "state"),
    [
        (numbered(sqlite_module.HERE_MAX + 1), []),
        ([message(bytes(sqlite_module.HERE_BYTES_MAX + 1))], []),
        ([message(properties=bytes(sqlite_module.HERE_BYTES_MAX + 1))], []),
        ([], [Delete(SessionDocument, ("with all its subscriptions",))]),
    ],
)
async def test_what_is_large_goes_to_the_writers_thread(
    sqlite: SqliteStore, threads: list[int], large: list[Message], state: list[Operation]
) -> None:
    await sqlite.append(large, state)
    await sqlite.append([message()])
    assert [thread == threading.get_ident() for thread in threads] == [False, True]


@pytest.mark.usefixtures("quick_disk")
async def test_the_connection_is_in_one_hand_at_a_time(
    sqlite: SqliteStore, threads: list[int]
) -> None:
    """Also when whoever gave the writer's thread its work does not wait for it any more."""
    begun, go_on = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        assert go_on.wait(10)

    task = asyncio.create_task(sqlite._thread.run(work))
    await asyncio.to_thread(begun.wait, 10)
    task.cancel()
    append = asyncio.create_task(sqlite.append([message()]))
    await asyncio.wait([append], timeout=0.01)
    go_on.set()
    await append
    assert threads[0] != threading.get_ident()
    await sqlite.append([message()])
    assert threads[1] == threading.get_ident()


@pytest.mark.usefixtures("quick_disk")
async def test_the_loop_does_not_wait_for_a_lock_of_another_program(sqlite: SqliteStore) -> None:
    await sqlite.append([message("before")])
    with closing(sqlite3.connect(sqlite.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        append = asyncio.create_task(sqlite.append([message("waits")]))
        assert await sqlite.read(Offset(1), END), "the loop turns meanwhile"
        assert not append.done()
        other.execute("ROLLBACK")
    await append
    assert payloads(await read_all(sqlite)) == [b"before", b"waits"]


@pytest.mark.usefixtures("quick_disk")
async def test_a_failed_write_here_is_also_the_last(
    sqlite: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await sqlite.append([message("before")])

    def fail(part: Sequence[Message]) -> int:
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as failing:
        failing.setattr(sqlite._writer, "_insert", fail)
        with pytest.raises(StoreUnavailable, match="disk I/O error"):
            await sqlite.append([message("lost")])
    with pytest.raises(StoreUnavailable, match="no more writes since"):
        await sqlite.append([message("refused")])
    assert payloads(await read_all(sqlite)) == [b"before"]


# Reading


async def test_damage_leaves_no_snapshot_open(sqlite: SqliteStore) -> None:
    """It would keep the write-ahead log from ever starting over."""
    await sqlite.append(numbered(3))
    await in_writer(sqlite, lambda database: database.execute("UPDATE messages SET crc = 0"))
    assert (await sqlite.read(Offset(1), END)).damaged == [range(1, 4)]
    assert (await sqlite.fetch([Offset(1), Offset(2)])).damaged == [range(1, 3)]
    await sqlite.close()
    assert [file.name for file in sqlite.path.parent.iterdir()] == ["pubsub.db"]


async def test_reads_do_not_wait_for_a_commit(sqlite: SqliteStore) -> None:
    await sqlite.append(numbered(10))
    held = sqlite._thread.run(time.sleep, 0.5)
    waiting = asyncio.ensure_future(held)
    assert len(await read_all(sqlite)) == 10
    assert not waiting.done()
    await waiting


async def test_tail_notices_a_trim_that_overtakes_its_read(
    sqlite: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = numbered(10)
    await sqlite.append(written)
    read = sqlite.read

    async def overtaken(start: Offset, end: Offset) -> Read:
        await sqlite.trim(Offset(5))
        return await read(start, end)

    monkeypatch.setattr(sqlite, "read", overtaken)
    assert await tail_until(sqlite, 1, 10) == [Skipped(Offset(1), Offset(4)), *written[4:]]


async def test_a_disk_that_cannot_be_read_is_not_called_damage(
    sqlite: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither by a read, nor by a commit, a check or a start."""

    def malformed(*_: object) -> None:
        error = sqlite3.DatabaseError("database disk image is malformed")
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error

    def cannot_read(*_: object) -> bytes:
        raise OSError(5, "Input/output error")

    await sqlite.append([message()])
    monkeypatch.setattr(reader.Reader, "read", malformed)
    with pytest.raises(StoreCorrupt, match="malformed"):
        await read_all(sqlite)
    monkeypatch.setattr(os, "pread", cannot_read)
    monkeypatch.setattr(sqlite._writer, "_insert", malformed)
    for call in (read_all(sqlite), sqlite.append(numbered(100))):
        with pytest.raises(StoreUnavailable, match="Input/output error: the disk fails"):
            await call
    await sqlite.close()
    monkeypatch.setattr(opening, "_make_writer", malformed)
    with pytest.raises(StoreUnavailable, match="Input/output error: the disk fails"):
        await sqlite.open()


async def test_whether_the_disk_can_be_read_is_looked_at_once_for_each_damaged_block(
    sqlite: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It means reading the file, and every reader comes to the damage."""
    await sqlite.append(numbered(3000))
    await sqlite.close()
    change(sqlite.path, "UPDATE messages SET qos = 2 WHERE offset IN (500, 600, 1500)")
    await sqlite.open()
    looks: list[OSError | None] = [OSError(5, "Input/output error"), None, None]
    monkeypatch.setattr(sqlite._file, "cannot_be_read", lambda: looks.pop(0))
    with pytest.raises(StoreUnavailable):
        await read_all(sqlite)
    assert sqlite._damage.offsets == 0
    for _ in range(3):
        assert len(await read_all(sqlite)) == 2997
    assert looks == []
    assert sqlite._damage.offsets == 3


async def test_a_disk_that_does_not_tell_sizes_is_a_store_error(
    sqlite: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(_: Path) -> bool:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "exists", failing)
        with pytest.raises(StoreUnavailable, match=r"pubsub\.db"):
            await sqlite.stats()
