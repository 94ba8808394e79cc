"""Gaps of offsets, and the messages between them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from broker.message import Offset
from broker.store.sqlite import gaps

LOST = gaps.OFFSETS_LOST_MAX


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.execute("CREATE TABLE messages (offset INTEGER PRIMARY KEY AUTOINCREMENT)")
        connection.execute("CREATE TABLE log AS SELECT 1 AS start")
        connection.execute("CREATE TABLE gaps (first INTEGER PRIMARY KEY, last INTEGER)")
        connection.execute(
            "CREATE TABLE removed (block INTEGER PRIMARY KEY, messages, newest, offsets)"
        )
        yield connection


def insert(connection: sqlite3.Connection) -> int:
    return connection.execute("INSERT INTO messages DEFAULT VALUES").lastrowid or 0


def rows(connection: sqlite3.Connection) -> list[tuple[int, int]]:
    return connection.execute("SELECT first, last FROM gaps ORDER BY first").fetchall()


def test_the_next_offset_is_above_the_gap(connection: sqlite3.Connection) -> None:
    assert insert(connection) == 1
    assert gaps.leave(connection, Offset(0)) == range(2, 2 + LOST)
    assert insert(connection) == 2 + LOST
    assert rows(connection) == [(2, 1 + LOST)]


def test_it_begins_at_the_first_offset_of_an_empty_log(connection: sqlite3.Connection) -> None:
    gaps.leave(connection, Offset(0))
    assert insert(connection) == 1 + LOST


def test_it_reaches_beyond_what_was_noted(connection: sqlite3.Connection) -> None:
    insert(connection)
    gaps.leave(connection, Offset(5_000_000))
    assert insert(connection) == 5_000_001 + LOST
    assert rows(connection) == [(2, 5_000_000 + LOST)]


@pytest.mark.parametrize(
    ("stopped_at_us", "version", "why"),
    [
        (None, "0.1.0", "as the broker was not stopped cleanly"),
        (None, "backup of 0.1.0", "as the log is a backup, and the original may have gone on"),
        (7, "0.1.0", "as offset 1 had been given out"),
    ],
)
def test_it_is_told_with_its_reason(
    connection: sqlite3.Connection,
    caplog: pytest.LogCaptureFixture,
    stopped_at_us: int | None,
    version: str,
    why: str,
) -> None:
    """P2"""
    caplog.set_level("INFO")
    connection.execute("CREATE TABLE broker_runs (id INTEGER PRIMARY KEY, stopped_at_us, version)")
    connection.execute(
        "INSERT INTO broker_runs VALUES (1, 1, 'older'), (2, ?, ?)", (stopped_at_us, version)
    )
    insert(connection)
    gaps.leave_at_start(connection, Offset(1))
    [line] = caplog.messages
    assert line == f"offsets 2..{1 + LOST} are left out, {why}: none is given twice"
    assert insert(connection) == 2 + LOST


def test_it_begins_after_the_newest_message_not_after_what_was_reserved(
    connection: sqlite3.Connection,
) -> None:
    insert(connection)
    connection.execute("UPDATE sqlite_sequence SET seq = 1023")
    gaps.leave(connection, Offset(0))
    assert insert(connection) == 1024 + LOST
    assert rows(connection) == [(2, 1023 + LOST)]


def test_gaps_that_meet_are_one(connection: sqlite3.Connection) -> None:
    for _ in range(3):
        gaps.leave(connection, Offset(0))
    assert rows(connection) == [(1, 3 * LOST)]


def test_messages_are_counted_between_them(connection: sqlite3.Connection) -> None:
    for _ in range(3):
        first = insert(connection)
        insert(connection)
        gaps.leave(connection, Offset(0))
    assert first == 5 + 2 * LOST
    last = insert(connection)
    for start in (1, 2, 3, 10, 2 + LOST, 3 + LOST, 4 + LOST, first, last, last + 1):
        ((there,),) = connection.execute(
            "SELECT count(*) FROM messages WHERE offset >= ?", (start,)
        ).fetchall()
        assert gaps.count_messages(connection, Offset(start), Offset(last)) == there


def test_those_below_the_log_start_are_forgotten(connection: sqlite3.Connection) -> None:
    insert(connection)
    gaps.leave(connection, Offset(0))
    gaps.forget(connection, 1 + LOST)
    assert len(rows(connection)) == 1
    gaps.forget(connection, 2 + LOST)
    assert rows(connection) == []
