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

from broker.documents import Operation
from broker.errors import StoreCorrupt, StoreUnavailable
from broker.message import Message, Offset
from broker.store import Read, Skipped
from broker.store.sqlite import reader, writer
from broker.store.sqlite import store as sqlite_module
from broker.store.sqlite.files import opening
from broker.store.sqlite.in_loop import SAMPLES_MIN, SMALL_MAX
from broker.store.sqlite.store import SqliteStore
from broker.store.sqlite.writer import Committed
from tests.support.messages import message, numbered
from tests.support.sqlite import ask, change, in_writer, opened, problems
from tests.support.stores import END, payloads, read_all, tail_until

# The file


async def test_a_stopped_store_is_one_file_and_its_note(sqlite: SqliteStore) -> None:
    await sqlite.append(numbered(100))
    await sqlite.close()
    files = sorted(file.name for file in sqlite.path.parent.iterdir())
    assert files == ["pubsub.db", "pubsub.db-note"]


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


def at_once(
    sqlite: SqliteStore, batch: Sequence[Message], state: Sequence[Operation] = ()
) -> list[str]:
    """What is heard of it, when it is committed; nothing: it is not."""
    heard: list[str] = []
    done = sqlite.append_now(
        batch, state, durable=True, places=(), committed=lambda: heard.append("committed")
    )
    assert done is bool(heard)
    return heard


async def test_the_loop_commits_by_itself_where_a_hand_over_takes_longer(
    sqlite: SqliteStore, threads: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    took_s = [0.001]
    commit = sqlite._writer.commit

    def timed(*args: Any, **options: Any) -> Committed:
        return commit(*args, **options)._replace(took_s=took_s[0])

    monkeypatch.setattr(sqlite._writer, "commit", timed)
    monkeypatch.setattr(
        sqlite_module, "perf_counter", itertools.count(0.0, took_s[0] * 1.5).__next__
    )
    for _ in range(SAMPLES_MIN):
        assert not at_once(sqlite, [message()])
        await sqlite.append([message()])
    assert threading.get_ident() not in threads
    assert at_once(sqlite, [message()])
    assert threads[-1] == threading.get_ident()
    took_s[0] = 1.0
    assert at_once(sqlite, [message()])
    assert not at_once(sqlite, [message()])


@pytest.mark.usefixtures("quick_disk")
async def test_what_is_large_is_not_committed_in_the_loop(sqlite: SqliteStore) -> None:
    assert not at_once(sqlite, numbered(SMALL_MAX + 1))
    assert at_once(sqlite, [message()])


@pytest.mark.usefixtures("quick_disk")
async def test_nothing_is_committed_in_the_loop_by_a_closed_store(sqlite: SqliteStore) -> None:
    await sqlite.close()
    assert not at_once(sqlite, [message()])


@pytest.mark.usefixtures("quick_disk")
async def test_a_reader_that_waits_takes_a_batch_in_the_turn_of_its_commit(
    sqlite: SqliteStore,
) -> None:
    """Behind whoever is told of the commit; and what it does not take comes in its order."""
    heard: list[object] = []
    takes = True

    def take(batch: Sequence[Message]) -> bool:
        if takes:
            heard.append(payloads(batch))
        return takes

    async def read_on() -> None:
        async for batch in sqlite.tail(Offset(1), take):
            assert not isinstance(batch, Skipped)
            heard.append(("read", payloads(batch)))

    def append(payload: str) -> None:
        assert sqlite.append_now(
            [message(payload)],
            (),
            durable=True,
            places=(),
            committed=lambda: heard.append("committed"),
        )

    reading = asyncio.create_task(read_on())
    await asyncio.sleep(0)
    append("1")
    append("2")
    assert heard == ["committed", [b"1"], "committed", [b"2"]]
    heard.clear()
    takes = False
    append("3")
    takes = True
    append("4")  # Not before 3.
    await asyncio.sleep(0)
    assert heard == ["committed", "committed", ("read", [b"3"]), ("read", [b"4"])]
    heard.clear()
    append("5")
    await sqlite.append([message("6")])
    await asyncio.sleep(0)
    assert heard == ["committed", [b"5"], ("read", [b"6"])]
    await sqlite.close()
    await reading


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
    assert not at_once(sqlite, [message()])
    append = asyncio.create_task(sqlite.append([message()]))
    await asyncio.wait([append], timeout=0.01)
    go_on.set()
    await append
    assert threads[0] != threading.get_ident()
    assert at_once(sqlite, [message()])
    assert threads[1] == threading.get_ident()


@pytest.mark.usefixtures("quick_disk")
async def test_the_loop_does_not_wait_for_a_lock_of_another_program(sqlite: SqliteStore) -> None:
    await sqlite.append([message("before")])
    with closing(sqlite3.connect(sqlite.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert not at_once(sqlite, [message("waits")])
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
    files = sorted(file.name for file in sqlite.path.parent.iterdir())
    assert files == ["pubsub.db", "pubsub.db-note"]


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

    def malformed(*_: object, **__: object) -> None:
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
