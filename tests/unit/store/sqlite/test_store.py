"""What only the database on the disk can do right or wrong: its file, its failures, its crashes."""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import resource
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from broker.documents import CursorDocument, Delete, Operation, Put, SessionDocument
from broker.errors import SchemaMismatch, StoreCorrupt, StoreError, StoreFull, StoreUnavailable
from broker.message import Message, Offset
from broker.store import Read, Skipped
from broker.store.sqlite import store as sqlite_module
from broker.store.sqlite import writer
from broker.store.sqlite.store import SqliteStore
from tests.support.stores import message, numbered, payloads, read_all, tail_until

END = Offset(1 << 62)


def change(path: Path, *statements: str) -> None:
    """Damage a database behind the store's back."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            assert connection.execute(statement).rowcount, "changed nothing"


def ask(path: Path, sql: str) -> list[tuple[object, ...]]:
    """As `pubsub log` reads: another connection, read-only."""
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
        return connection.execute(sql).fetchall()


def wal_size(store: SqliteStore) -> int:
    return os.path.getsize(f"{store.path}-wal")


# The file


async def test_only_the_owner_may_read_what_is_written(sqlite: SqliteStore) -> None:
    await sqlite.append([message()])
    for file in sqlite.path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file.name


async def test_a_stopped_store_is_one_file(sqlite: SqliteStore) -> None:
    await sqlite.append(numbered(100))
    await sqlite.close()
    assert [file.name for file in sqlite.path.parent.iterdir()] == ["pubsub.db"]


async def test_history_can_be_read_beside_the_broker_and_after_it(sqlite: SqliteStore) -> None:
    await sqlite.append([message("Rainy", expires_at_us=None)])
    expected = [(1, "2023-11-14T22:13:20.000000Z", "pub1", 1, 0, "weather", b"Rainy", None)]
    sql = (
        "SELECT offset, published_at, publisher, qos, retain, topic, payload, expires_at_us"
        " FROM history"
    )
    assert ask(sqlite.path, sql) == expected
    await sqlite.close()
    assert ask(sqlite.path, sql) == expected


async def test_commits_are_fsynced_unless_nothing_needs_it(
    sqlite: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def synchronous() -> int:
        level: int = await sqlite._run(
            sqlite._connections[0], lambda c: c.execute("PRAGMA synchronous").fetchone()[0]
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


async def test_durability_os_leaves_the_disk_to_the_kernel(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "pubsub.db", durability="os")
    await store.open()
    await store.append([message()])
    rows = await store._run(
        store._connections[0], lambda c: c.execute("PRAGMA synchronous").fetchall()
    )
    assert rows == [(1,)]
    await store.close()


async def test_the_write_ahead_log_is_folded_in_while_the_broker_runs(
    sqlite: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "CHECKPOINT_PAGES", 100)
    largest = 0
    for _ in range(100):
        await sqlite.append([message(bytes(10_000)) for _ in range(10)])
        largest = max(largest, wal_size(sqlite))
    assert sqlite.path.stat().st_size > 5_000_000
    assert largest < 3_000_000


async def test_what_is_not_a_database_is_refused(tmp_path: Path) -> None:
    content = b"hello, this is a text file and not a database" * 90
    path = tmp_path / "pubsub.db"
    path.write_bytes(content)
    with pytest.raises(SchemaMismatch, match="is not an SQLite database") as caught:
        await SqliteStore(path).open()
    assert str(path) in str(caught.value)
    assert path.read_bytes() == content


async def test_a_directory_in_the_place_of_the_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SchemaMismatch, match="is a directory"):
        await SqliteStore(tmp_path).open()


async def test_a_directory_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="cannot be created: No such file"):
        await SqliteStore(tmp_path / "none" / "pubsub.db").open()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
async def test_a_file_that_may_not_be_written_is_said(tmp_path: Path) -> None:
    path = tmp_path / "pubsub.db"
    path.touch(mode=0o400)
    with pytest.raises(StoreUnavailable, match="cannot be written"):
        await SqliteStore(path).open()


# Failures (S7, S8)


async def test_a_full_disk_fails_the_append_and_the_store_recovers(sqlite: SqliteStore) -> None:
    await sqlite.append([message("before", "old")])

    async def limit(pages: int) -> None:
        await sqlite._run(
            sqlite._connections[0], lambda c: c.execute(f"PRAGMA max_page_count = {pages}")
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
    assert await sqlite.check() == []


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

    monkeypatch.setattr(writer, "CHECKPOINT_PAGES", 1)
    full: Any = FullDisk(sqlite._writer._connection)
    monkeypatch.setattr(sqlite._writer, "_connection", full)
    for i in range(5):
        await sqlite.append([message(str(i))])
    await sqlite.close()
    await sqlite.open()
    assert payloads(await read_all(sqlite)) == [b"0", b"1", b"2", b"3", b"4"]


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
    with closing(sqlite3.connect(sqlite.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="locked by another process"):
            await sqlite.append([message()])
        other.execute("ROLLBACK")
    await sqlite.append([message("after")])
    assert payloads(await read_all(sqlite)) == [b"after"]


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE messages SET payload = x'53756e6e79' WHERE offset = 2",
        "UPDATE messages SET properties = x'00' WHERE offset = 2",
        "UPDATE messages SET qos = 2 WHERE offset = 2",
        "UPDATE messages SET retain = 1 WHERE offset = 2",
        "UPDATE messages SET published_at_us = published_at_us + (1 << 40) WHERE offset = 2",
        "UPDATE messages SET expires_at_us = 1 WHERE offset = 2",
        "UPDATE messages SET topic_id = 1 WHERE offset = 2",
        "UPDATE messages SET topic_id = 99 WHERE offset = 2",
        "UPDATE messages SET publisher_id = 1 WHERE offset = 2",
        "UPDATE messages SET crc = crc + 1 WHERE offset = 2",
        "UPDATE topics SET name = 'weathes' WHERE id = 2",
        "UPDATE publishers SET client_id = '2' WHERE id = 2",
    ],
)
async def test_damage_is_found_and_named_without_the_payload(
    sqlite: SqliteStore, damage: str
) -> None:
    await sqlite.append([message("1", "a", publisher="x"), message("Rainy"), message("3", "a")])
    await sqlite.close()
    change(sqlite.path, damage)
    await sqlite.open()
    with pytest.raises(StoreCorrupt, match="offset 2") as caught:
        await sqlite.read(Offset(1), END)
    assert "Rainy" not in str(caught.value)
    assert any("offset 2" in problem for problem in await sqlite.check())
    assert payloads((await sqlite.read(Offset(1), Offset(1))).messages) == [b"1"]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("DELETE FROM topic_blocks WHERE topic_id = 2", "offset 2 is not indexed"),
        ("UPDATE retained SET offset = 7", "the retained message of topic 1 is not there"),
        ("UPDATE retained SET offset = 2", "offset 2 is of topic 2, not 1"),
        ("UPDATE cursors SET offset = 9", r"the cursor of sub1 \(9\) is above"),
        ("INSERT INTO retained VALUES (55, 1)", "refers to nothing in topics"),
    ],
)
async def test_check_finds_what_does_not_fit_together(
    sqlite: SqliteStore, damage: str, said: str
) -> None:
    cursor = CursorDocument("sub1", Offset(1), Offset(1), 1, b"")
    await sqlite.append(
        [message("1", "a", retain=True), message("2", "b")],
        [Put(SessionDocument("sub1", 1, 1, None)), Put(cursor)],
    )
    assert await sqlite.check() == []
    await sqlite.close()
    change(sqlite.path, damage)
    await sqlite.open()
    problems = await sqlite.check()
    assert any(re.search(said, problem) for problem in problems)


async def test_check_survives_a_torn_file(sqlite: SqliteStore) -> None:
    await sqlite.append([message(bytes(1000)) for _ in range(2000)])
    await sqlite.close()
    with sqlite.path.open("r+b") as file:
        file.seek(100 * 4096)
        file.write(os.urandom(20 * 4096))
    await sqlite.open()
    assert await sqlite.check() != []


async def test_no_error_of_sqlite_escapes(sqlite: SqliteStore) -> None:
    for sql in ("SELECT nothing", "INSERT INTO messages DEFAULT VALUES"):
        with pytest.raises(StoreError):
            await sqlite._run(sqlite._connections[0], sqlite3.Connection.execute, sql)


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
    monkeypatch.setattr(sqlite_module, "perf_counter", lambda: next(clock))
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
    monkeypatch.setattr(sqlite_module, "perf_counter", lambda: next(times))
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

    def work(connection: sqlite3.Connection) -> None:
        begun.set()
        assert go_on.wait(10)

    task = asyncio.create_task(sqlite._write(work))
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


async def test_a_failure_that_nobody_waited_for_leaves_an_unclean_stop(
    sqlite: SqliteStore,
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def fail(connection: sqlite3.Connection) -> None:
        begun.set()
        assert go_on.wait(10)
        raise sqlite3.OperationalError("disk I/O error")

    task = asyncio.create_task(sqlite._write(fail))
    await asyncio.to_thread(begun.wait, 10)
    task.cancel()
    closed = asyncio.create_task(sqlite.close())
    await asyncio.sleep(0)
    go_on.set()
    await closed
    assert ask(sqlite.path, "SELECT stopped_at_us FROM broker_runs") == [(None,)]


@pytest.mark.usefixtures("quick_disk")
async def test_a_failed_write_here_is_also_the_last(
    sqlite: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await sqlite.append([message("before")])

    def fail(*args: Any, **options: Any) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as failing:
        failing.setattr(sqlite._writer, "commit", fail)
        with pytest.raises(StoreUnavailable, match="disk I/O error"):
            await sqlite.append([message("lost")])
    with pytest.raises(StoreUnavailable, match="no more writes since"):
        await sqlite.append([message("refused")])
    assert payloads(await read_all(sqlite)) == [b"before"]


# Starting and stopping (S2, S9)


def boot(monkeypatch: pytest.MonkeyPatch, boot_id: str | None) -> None:
    monkeypatch.setattr(sqlite_module, "_boot_id", lambda: boot_id)


async def offset_after(path: Path, monkeypatch: pytest.MonkeyPatch, boot_id: str | None) -> int:
    """The offset that a broker started on a copy of the database gives out next."""
    boot(monkeypatch, boot_id)
    store = SqliteStore(path)
    await store.open()
    assert store.high_watermark == 3
    only = message()
    await store.append([only])
    assert await store.check() == []
    assert await tail_until(store, 1, only.offset) == await read_all(store)
    await store.close()
    return only.offset


@pytest.mark.parametrize(
    ("before", "after", "gap"), [("a", "a", 0), ("a", "b", 1), (None, None, 1), ("a", None, 1)]
)
async def test_a_gap_of_offsets_is_left_only_where_some_may_be_lost(
    sqlite: SqliteStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    before: str | None,
    after: str | None,
    gap: int,
) -> None:
    await sqlite.close()
    boot(monkeypatch, before)
    await sqlite.open()
    await sqlite.append(numbered(3))
    crashed = tmp_path / "crashed" / "pubsub.db"
    crashed.parent.mkdir()
    for file in (sqlite.path, sqlite.path.with_name("pubsub.db-wal")):
        shutil.copy(file, crashed.parent)
    await sqlite.close()
    expected = 4 + gap * writer.OFFSETS_LOST_MAX
    assert await offset_after(crashed, monkeypatch, after) == expected
    assert await offset_after(sqlite.path, monkeypatch, after) == 4, "stopped cleanly"


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
    for _ in range(3):
        acknowledged = await asyncio.to_thread(killed_writer, path)
        found = ask(path, "SELECT count(*), max(offset) FROM history")
        assert found[0][0] == found[0][1], "no gap after a kill on the same boot"
        assert isinstance(found[0][0], int)
        assert found[0][0] >= acknowledged
        store = SqliteStore(path)
        await store.open()
        assert store.high_watermark == found[0][1]
        assert await store.check() == []
        await store.close()


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
        log_start, high_watermark = writer.Writer(connection).start("boot", "1")
    assert (log_start, high_watermark) == (1, 20_000)
    assert steps < 50


# Reading


async def test_damage_leaves_no_snapshot_open(sqlite: SqliteStore) -> None:
    """It would keep the write-ahead log from ever starting over."""
    await sqlite.append(numbered(3))
    await sqlite._run(
        sqlite._connections[0], sqlite3.Connection.execute, "UPDATE messages SET crc = 0"
    )
    errors = []
    for call in (sqlite.read(Offset(1), END), sqlite.fetch([Offset(1), Offset(2)])):
        with pytest.raises(StoreCorrupt) as caught:
            await call
        errors.append(caught.value)
    await sqlite.close()
    assert [file.name for file in sqlite.path.parent.iterdir()] == ["pubsub.db"]


async def test_reads_do_not_wait_for_a_commit(sqlite: SqliteStore) -> None:
    await sqlite.append(numbered(10))
    held = sqlite._run(sqlite._connections[0], lambda c: time.sleep(0.5))
    waiting = asyncio.ensure_future(held)
    assert len(await read_all(sqlite)) == 10
    assert not waiting.done()
    await waiting


async def test_caches_of_names_are_bounded(
    sqlite: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "NAMES_MAX", 10)
    monkeypatch.setattr("broker.store.sqlite.reader.NAMES_MAX", 10)
    monkeypatch.setattr("broker.store.sqlite.reader.FILTERS_SIZE_MAX", 10)
    written = [message(str(i), f"t/{i % 37}", publisher=f"p{i % 23}") for i in range(2000)]
    await sqlite.append(written)
    assert await read_all(sqlite) == written
    for i in range(37):
        assert await read_all(sqlite, [f"t/{i}"]) == written[i::37]
    assert await read_all(sqlite, ["t/+"]) == written
    assert len(sqlite._writer._pairs) <= 10
    assert all(len(reader._names) <= 10 for reader in sqlite._readers)


async def test_a_read_without_a_match_looks_at_a_bounded_part(
    sqlite: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.store.sqlite.reader.TOPIC_BLOCKS_PER_READ", 4)
    last = message("x", "rare")
    await sqlite.append([*numbered(20_000), last])
    read = await sqlite.read(Offset(1), END, ["rare"])
    assert read.messages == []
    assert 1 < read.next < 20_000
    assert await read_all(sqlite, ["rare"]) == [last]


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


async def test_a_slow_reader_of_tail_holds_a_bounded_queue(
    sqlite: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.store.tail.TAIL_QUEUE_BYTES_MAX", 100_000)
    batches = sqlite.tail(Offset(1))
    await sqlite.append([message("first")])
    seen: list[Message] = []
    while sqlite.high_watermark < 100 or len(seen) < sqlite.high_watermark:
        batch = await anext(batches)
        assert isinstance(batch, list)
        seen += batch
        if sqlite.high_watermark < 100:
            for _ in range(33):
                await sqlite.append([message(bytes(5_000), properties=bytes(5_000))])
        (tail,) = sqlite._tails
        assert tail._size <= 100_000
        assert sum(m.size for _, batch, _ in tail._batches for m in batch) <= 100_000
    assert [m.offset for m in seen] == [*range(1, 101)]


# Copies


async def test_backup_is_a_sound_database_of_its_own(sqlite: SqliteStore, tmp_path: Path) -> None:
    written = numbered(3000)
    await sqlite.append(written)
    copy = tmp_path / "copy.db"
    await asyncio.gather(sqlite.backup(copy), sqlite.append([message("later")]))
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    store = SqliteStore(copy)
    await store.open()
    assert (await read_all(store))[:3000] == written
    assert await store.check() == []
    await store.close()


async def test_backup_never_overwrites(sqlite: SqliteStore, tmp_path: Path) -> None:
    (tmp_path / "there").write_text("mine")
    with pytest.raises(StoreUnavailable, match="File exists"):
        await sqlite.backup(tmp_path / "there")
    assert (tmp_path / "there").read_text() == "mine"
