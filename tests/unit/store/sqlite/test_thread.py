"""Functions in the thread of a connection: their order, their errors, and when it is idle."""

from __future__ import annotations

import asyncio
import errno
import inspect
import sqlite3
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import aiosqlite
import pytest

from broker.errors import StoreCorrupt, StoreError, StoreUnavailable
from broker.store.sqlite.thread import ConnectionThread
from tests.support.requirements import allowed, installed


@pytest.fixture
async def thread(tmp_path: Path) -> AsyncIterator[ConnectionThread]:
    path = tmp_path / "any.db"
    thread = await ConnectionThread.connect(str(path), path, check_same_thread=False)
    yield thread
    await thread.close()


class Work:
    """Keeps the thread busy until it may go on."""

    def __init__(self) -> None:
        self.begun, self.may_go_on = threading.Event(), threading.Event()

    def __call__(self) -> None:
        self.begun.set()
        assert self.may_go_on.wait(10)


async def test_a_test_that_fails_does_not_keep_pytest_from_ending(
    thread: ConnectionThread,
) -> None:
    left = [each for each in threading.enumerate() if "_connection_worker_thread" in each.name]
    assert left
    assert all(each.daemon for each in left)


def test_who_cannot_connect_leaves_no_thread_behind(tmp_path: Path) -> None:
    """One that outlives its event loop prints a traceback."""
    path = tmp_path / "nowhere" / "any.db"
    before = threading.enumerate()
    with pytest.raises(StoreUnavailable):
        asyncio.run(ConnectionThread.connect(str(path), path))
    assert {*threading.enumerate()} <= {*before}  # One of an earlier test may end meanwhile.


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (OSError(errno.EIO, "Input/output error"), StoreUnavailable),
        (sqlite3.OperationalError("disk I/O error"), StoreUnavailable),
        (UnicodeDecodeError("utf-8", b"", 0, 1, "damaged"), StoreCorrupt),
    ],
)
async def test_a_function_fails_alike_in_the_thread_and_in_the_callers(
    thread: ConnectionThread, error: Exception, raised: type[StoreError]
) -> None:
    def fail() -> None:
        raise error

    assert thread.run_here(threading.get_ident) == threading.get_ident()
    with pytest.raises(raised):
        await thread.run(fail)
    with pytest.raises(raised):
        thread.run_here(fail)


async def test_functions_run_in_one_thread_in_their_order(thread: ConnectionThread) -> None:
    found: list[tuple[int, int]] = []

    def note(number: int) -> int:
        found.append((number, threading.get_ident()))
        return number

    assert await asyncio.gather(*[thread.run(note, n) for n in range(5)]) == [*range(5)]
    assert [number for number, _ in found] == [*range(5)]
    assert len({ident for _, ident in found} - {threading.get_ident()}) == 1


async def test_no_error_of_sqlite_or_of_the_system_escapes(thread: ConnectionThread) -> None:
    with pytest.raises(StoreUnavailable, match=r"any\.db: no such column"):
        await thread.run(thread.database.execute, "SELECT missing")
    with pytest.raises(StoreUnavailable, match=r"any\.db: No such file"):
        await thread.run(Path("/none/at/all").read_bytes)


async def test_it_is_idle_when_nothing_is_under_way(thread: ConnectionThread) -> None:
    assert thread.idle
    work = Work()
    running = asyncio.create_task(thread.run(work))
    await asyncio.to_thread(work.begun.wait, 10)
    assert not thread.idle
    work.may_go_on.set()
    await running
    assert thread.idle
    with pytest.raises(StoreUnavailable):
        await thread.run(thread.database.execute, "SELECT missing")
    assert thread.idle, "also after an error"


async def test_after_a_cancelled_call_it_is_idle_when_a_later_one_has_returned(
    thread: ConnectionThread,
) -> None:
    """The function goes on in the thread: two would have the connection in their hands."""
    work = Work()
    running = asyncio.create_task(thread.run(work))
    await asyncio.to_thread(work.begun.wait, 10)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert not thread.idle
    later = asyncio.create_task(thread.run(int))
    await asyncio.sleep(0)
    assert not thread.idle
    work.may_go_on.set()
    await later
    assert thread.idle


async def test_a_closed_one_runs_nothing(thread: ConnectionThread) -> None:
    await thread.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        await thread.run(int)
    with pytest.raises(sqlite3.ProgrammingError):
        thread.database.execute("SELECT 1")


def test_aiosqlite_is_a_version_that_was_tried() -> None:
    """The tests of the store passed with 0.22.0 and 0.22.1; in 0.21 a Connection has no `stop`."""
    assert allowed("aiosqlite") == ">=0.22,<0.23"
    assert installed("aiosqlite") == (0, 22)


def test_the_private_names_of_aiosqlite_that_it_uses_are_there() -> None:
    assert isinstance(inspect.getattr_static(aiosqlite.Connection, "_conn"), property)
    assert [*inspect.signature(aiosqlite.Connection._execute).parameters] == [
        "self",
        "fn",
        "args",
        "kwargs",
    ]
