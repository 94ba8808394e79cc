"""Where a time lies in the log: blocks without figures, holes, and many blocks."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.store.sqlite.files import schema
from broker.store.sqlite.searching import when
from broker.store.sqlite.searching.when import FirstAt, LastBefore


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    schema.migrate(connection, Path("pubsub.db"), schema.migrations())
    yield connection
    connection.close()


def fill(
    connection: sqlite3.Connection, times: dict[int, int], *, without_figures: tuple[int, ...] = ()
) -> None:
    """Offsets and their times; the newest block is open."""
    connection.executemany(
        "INSERT INTO messages VALUES (?, 1, 1, ?, 0, 0, 0, x'', x'', 0)", times.items()
    )
    connection.execute(
        "INSERT INTO blocks SELECT offset >> 10, 1, count(*), 0, max(published_at_us), 0"
        " FROM messages WHERE offset >> 10 < (SELECT max(offset) >> 10 FROM messages) GROUP BY 1"
    )
    for block in without_figures:
        connection.execute("DELETE FROM blocks WHERE block = ?", (block,))


def found(connection: sqlite3.Connection, time_us: int, start: int, end: int) -> tuple[int, int]:
    return (
        FirstAt(time_us, start, end).whole(connection),
        LastBefore(time_us, start, end).whole(connection),
    )


def test_a_block_without_figures_is_read(connection: sqlite3.Connection) -> None:
    fill(connection, {n: n for n in range(1, 9000)}, without_figures=(0, 1, 4))
    connection.execute("UPDATE blocks SET messages = -1, newest_at_us = -1 WHERE block = 2")
    for time_us in (1, 700, 2047, 2048, 2500, 4095, 4096, 5000, 7000, 8999):
        assert found(connection, time_us, 1, 8999) == (time_us, time_us - 1)
    assert found(connection, 9000, 1, 8999) == (9000, 8999)


def test_offsets_that_no_message_has_are_passed_over(connection: sqlite3.Connection) -> None:
    """As after an unclean stop: a thousand blocks and more have no row of figures."""
    far = 5_000_000_000
    fill(connection, {**{n: n for n in range(1, 3000)}, **{far + n: 5000 + n for n in range(3000)}})
    assert found(connection, 4000, 1, far + 2999) == (far, 2999)
    assert found(connection, 9000, 1, far + 2999) == (far + 3000, far + 2999)
    assert found(connection, 6000, 1, far + 2999) == (far + 1000, far + 999)


def test_only_what_is_between_start_and_end_is_looked_at(connection: sqlite3.Connection) -> None:
    fill(connection, {n: n for n in range(1, 5000)})
    assert found(connection, 10, 2000, 3000) == (2000, 1999)
    assert found(connection, 4000, 2000, 3000) == (3001, 3000)
    assert found(connection, 2500, 2000, 3000) == (2500, 2499)
    assert found(connection, 2500, 3000, 2000) == (2001, 2999)


def test_many_blocks_are_looked_at_in_parts(
    connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(when, "BLOCKS_PER_PART", 3)
    monkeypatch.setattr(when, "LOOKS_PER_PART", 1)
    fill(connection, {n: n for n in range(1, 20_000)}, without_figures=tuple(range(5, 12)))
    for time_us in (1, 2000, 7000, 12_000, 19_999):
        search = FirstAt(time_us, 1, 19_999)
        search.part(connection)
        assert search.done == (time_us < 3 << 10)
        assert found(connection, time_us, 1, 19_999) == (time_us, time_us - 1)
