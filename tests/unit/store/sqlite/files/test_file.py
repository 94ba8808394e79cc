"""The lock on the database file, and SQLite's own locks, which nothing may drop."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from broker.message import Offset
from broker.store.sqlite.files.file import DatabaseFile, bytes_on_disk
from broker.store.sqlite.store import SqliteStore
from tests.support.messages import numbered
from tests.support.stores import read_all

SECOND_BROKER = """
import asyncio, sys
from pathlib import Path
from broker.store.sqlite.store import SqliteStore
asyncio.run(SqliteStore(Path(sys.argv[1])).open())
"""


def locks(path: Path) -> list[str]:
    """This process's locks on the database and its shared memory, as the kernel lists them, each
    once: what others lock while the list is read shows one again. Twice the same, as it hides one
    when others let go."""
    listed = _locks(path)
    while (again := _locks(path)) != listed:
        listed = again
    return listed


def _locks(path: Path) -> list[str]:
    inodes = {f":{Path(f'{path}{suffix}').stat().st_ino}" for suffix in ("", "-shm")}
    lines = [line.split(":", 1)[1].split() for line in Path("/proc/locks").read_text().splitlines()]
    return sorted(
        {
            " ".join(words)
            for words in lines
            if str(os.getpid()) in words and any(word.endswith(tuple(inodes)) for word in words)
        }
    )


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="the kernel does not list locks")
@pytest.mark.parametrize(
    "call",
    [
        SqliteStore.stats,
        read_all,
        lambda store: store.trim(Offset(10)),
        lambda store: store.append(numbered(5)),
        lambda store: store._checkpoints.run(),
    ],
    ids=["stats", "read", "trim", "append", "checkpoint"],
)
async def test_no_call_drops_the_locks_of_sqlite(
    sqlite: SqliteStore, call: Callable[[SqliteStore], Awaitable[object]]
) -> None:
    """Closing any descriptor of a file drops all POSIX locks that the process has on it."""
    await sqlite.append(numbered(100))
    before = locks(sqlite.path)
    assert sum(line.startswith("POSIX") for line in before) >= 2
    assert sum(line.startswith("FLOCK") for line in before) == 1
    await call(sqlite)
    assert locks(sqlite.path) == before


async def test_a_second_broker_does_not_start_on_the_same_file(sqlite: SqliteStore) -> None:
    """Whatever was deleted beside it."""
    second = subprocess.run(  # noqa: ASYNC221
        [sys.executable, "-c", SECOND_BROKER, str(sqlite.path)], capture_output=True, check=False
    )
    assert b"in use by another broker" in second.stderr
    assert len(locks(sqlite.path)) >= 3
    await sqlite.append(numbered(1))


async def test_a_store_that_was_closed_or_did_not_open_holds_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "pubsub.db"
    store = SqliteStore(path)
    await store.open()
    await store.close()
    await store.open()
    await store.close()
    DatabaseFile(path).close()


def test_only_an_empty_file_that_was_made_is_removed_again(tmp_path: Path) -> None:
    path = tmp_path / "pubsub.db"
    for was_there in (False, True):
        if was_there:
            path.touch()
        file = DatabaseFile(path)
        file.undo()
        file.close()
        assert path.exists() is was_there


def test_the_size_on_disk_is_of_all_the_files_that_there_are(tmp_path: Path) -> None:
    path = tmp_path / "pubsub.db"
    path.write_bytes(bytes(100))
    assert bytes_on_disk(path) == 100
    (tmp_path / "pubsub.db-wal").write_bytes(bytes(20))
    (tmp_path / "pubsub.db-shm").write_bytes(bytes(3))
    assert bytes_on_disk(path) == 123
