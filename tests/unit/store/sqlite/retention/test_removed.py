"""What was removed, as bits."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from broker.store.sqlite.retention import removed

OFFSETS = {*range(1024, 1030), 1500, 2047, 2048, 2050, *range(3000, 3072), 3072}


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.execute(
            "CREATE TABLE removed (block INTEGER PRIMARY KEY, messages, newest, offsets)"
        )
        for offset in sorted(OFFSETS):
            removed.add(connection, offset >> 10, [offset])
        yield connection


@pytest.mark.parametrize(
    ("first", "last"), [(0, 9999), (1500, 1500), (1501, 2047), (2048, 3071), (1029, 3072), (9, 8)]
)
def test_they_are_counted(connection: sqlite3.Connection, first: int, last: int) -> None:
    expected = len([offset for offset in OFFSETS if first <= offset <= last])
    assert removed.count(connection, first, last) == expected


@pytest.mark.parametrize("part", [range(1000, 4000), range(1025, 1500), range(3000, 3072)])
def test_what_is_left_of_a_range(connection: sqlite3.Connection, part: range) -> None:
    left = [offset for found in removed.without(connection, part) for offset in found]
    assert left == [offset for offset in part if offset not in OFFSETS]


def test_bits_are_ranges(connection: sqlite3.Connection) -> None:
    found = [
        offset
        for block, bits in sorted(removed.of_blocks(connection, 0, 9).items())
        for part in removed.ranges(block, bits)
        for offset in part
    ]
    assert found == sorted(OFFSETS)


def test_the_newest_is_known(connection: sqlite3.Connection) -> None:
    assert connection.execute(f"SELECT {removed.NEWEST}").fetchone() == (3072,)
    connection.execute("DELETE FROM removed")
    assert connection.execute(f"SELECT {removed.NEWEST}").fetchone() == (0,)
