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


def test_it_is_told_after_a_crash(
    connection: sqlite3.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    """P2"""
    caplog.set_level("INFO")
    insert(connection)
    gaps.leave_after_crash(connection, Offset(0))
    [line] = caplog.messages
    assert line.startswith(f"offsets 2..{1 + LOST} are left out")
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
