"""Which offset the next message gets, and what SQLite knows of that."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from broker.store.sqlite.offsets import RESERVED_AT_ONCE, Offsets, OffsetsTaken


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.execute("CREATE TABLE messages (offset INTEGER PRIMARY KEY AUTOINCREMENT)")
        yield connection


def sequence(connection: sqlite3.Connection) -> int:
    [(found,)] = connection.execute("SELECT seq FROM sqlite_sequence").fetchall()
    return int(found)


def insert(connection: sqlite3.Connection, offset: int | None = None) -> None:
    connection.execute("INSERT INTO messages VALUES (?)", (offset,))


def test_they_follow_each_other_and_are_reserved_many_at_a_time(
    connection: sqlite3.Connection,
) -> None:
    offsets = Offsets(connection)
    assert offsets.take(1) == 1
    assert sequence(connection) == RESERVED_AT_ONCE - 1
    changes = connection.total_changes
    assert offsets.take(RESERVED_AT_ONCE - 2) == 2
    assert connection.total_changes == changes, "no page is written for that"
    assert offsets.take(1) == RESERVED_AT_ONCE
    assert sequence(connection) == 2 * RESERVED_AT_ONCE - 1
    assert offsets.take(5 * RESERVED_AT_ONCE) == RESERVED_AT_ONCE + 1
    assert sequence(connection) == 7 * RESERVED_AT_ONCE - 1


def test_a_message_with_a_reserved_offset_leaves_the_sequence_alone(
    connection: sqlite3.Connection,
) -> None:
    """Or its page would be in every commit: what this module is for."""
    insert(connection, Offsets(connection).take(1))
    assert sequence(connection) == RESERVED_AT_ONCE - 1


def test_a_clean_stop_gives_back_what_is_not_used(connection: sqlite3.Connection) -> None:
    offsets = Offsets(connection)
    offsets.take(3)
    offsets.give_back()
    assert sequence(connection) == 3
    assert Offsets(connection).take(1) == 4


def test_without_one_they_go_on_behind_what_was_reserved(connection: sqlite3.Connection) -> None:
    """S2: also if all messages are gone, and nothing says how many there were."""
    Offsets(connection).take(3)
    again = Offsets(connection)
    assert again.take(1) == RESERVED_AT_ONCE


def test_a_run_without_messages_gives_nothing_back(connection: sqlite3.Connection) -> None:
    Offsets(connection).take(3)
    Offsets(connection).give_back()
    assert sequence(connection) == RESERVED_AT_ONCE - 1


def test_an_older_log_goes_on_where_it_was(connection: sqlite3.Connection) -> None:
    for _ in range(5):
        insert(connection)
    connection.execute("DELETE FROM messages")
    assert Offsets(connection).take(1) == 6


def test_what_another_program_inserts_is_noticed_when_more_are_reserved(
    connection: sqlite3.Connection,
) -> None:
    offsets = Offsets(connection)
    offsets.take(RESERVED_AT_ONCE - 1)
    insert(connection)
    with pytest.raises(OffsetsTaken):
        offsets.take(1)
    offsets.next = None
    assert offsets.take(1) == RESERVED_AT_ONCE + 1
