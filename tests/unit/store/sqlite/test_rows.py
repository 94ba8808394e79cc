"""Messages as rows: the checksum that a flipped bit changes, and few statements for many rows."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.store.sqlite.rows import (
    COLUMNS,
    OFFSET_RULE,
    PAYLOAD,
    RETAIN,
    ROW,
    ROWS_PER_STATEMENT,
    TOPIC_ID,
    WIDTH,
    checksum,
    flat_rows,
    insert_rows,
    seed,
    without_offset,
)
from tests.support.messages import message

TIMES = st.integers(0, (1 << 53) - 1)


@given(
    numbers=st.tuples(TIMES, TIMES, st.integers(0, 3), st.integers(0, 1), TIMES),
    which=st.integers(0, 4),
    bit=st.integers(0, 52),
)
def test_a_flipped_bit_of_a_number_changes_the_checksum(
    numbers: tuple[int, int, int, int, int], which: int, bit: int
) -> None:
    """P8"""
    flipped = list(numbers)
    flipped[which] ^= 1 << (bit, bit, bit % 2, 0, bit)[which]
    offset, at, qos, retain, expires = flipped
    assert checksum(7, *numbers, b"Rainy", b"") != checksum(
        7, offset, at, qos, retain, expires, b"Rainy", b""
    )


@given(offset=TIMES, bit=st.integers(0, 62))
def test_the_rule_of_a_checksum_shows_in_it(offset: int, bit: int) -> None:
    """P8: a flipped bit makes no checksum of one rule to one of the other, but at offset 0."""
    ruled = checksum(7, offset, 1, 1, 0, 0, b"Rainy", b"")
    old = without_offset(ruled, offset)
    assert old == without_offset(checksum(7, 0, 1, 1, 0, 0, b"Rainy", b""), 0)
    assert old < OFFSET_RULE <= ruled
    if offset % 0xFFFF_FFFB:
        assert ruled ^ 1 << bit != old


@given(payload=st.binary(min_size=1, max_size=50), bit=st.integers(0))
def test_a_flipped_bit_of_payload_or_properties_changes_the_checksum(
    payload: bytes, bit: int
) -> None:
    """P8"""
    flipped = bytearray(payload)
    flipped[bit // 8 % len(payload)] ^= 1 << bit % 8
    assert checksum(7, 9, 1, 1, 0, 0, payload, b"") != checksum(
        7, 9, 1, 1, 0, 0, bytes(flipped), b""
    )
    assert checksum(7, 9, 1, 1, 0, 0, b"", payload) != checksum(
        7, 9, 1, 1, 0, 0, b"", bytes(flipped)
    )


def test_topic_and_publisher_are_in_the_seed_and_cannot_trade_letters() -> None:
    assert len({seed("a", "bc"), seed("ab", "c"), seed("abc", ""), seed("", "abc")}) == 4


def test_the_columns_are_where_the_constants_say() -> None:
    columns = COLUMNS.replace(" ", "").split(",")
    assert len(columns) == WIDTH == ROW.count("?")
    assert [columns[at] for at in (TOPIC_ID, RETAIN, PAYLOAD)] == ["topic_id", "retain", "payload"]
    row = flat_rows([message("Rainy", retain=True)], {("t", "pub1"): (5, 6, 7)}, 9)
    assert (row[0], row[TOPIC_ID], row[RETAIN], row[PAYLOAD]) == (9, 5, 1, b"Rainy")


@pytest.fixture
def database() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.execute("CREATE TABLE pairs (a INTEGER, b INTEGER)")
        yield connection


@pytest.mark.parametrize("rows", [0, 1, 2, 3, 511, 512, 513, 2000])
def test_rows_are_inserted_in_order_by_few_statements(
    database: sqlite3.Connection, rows: int
) -> None:
    statements: list[str] = []
    database.set_trace_callback(statements.append)
    flat = [*range(2 * rows)]
    last = insert_rows(database, "INSERT INTO pairs VALUES ", "(?,?)", "", 2, flat)
    database.set_trace_callback(None)
    assert last == rows
    assert len(statements) <= rows // ROWS_PER_STATEMENT + 9
    found = database.execute("SELECT a, b FROM pairs ORDER BY rowid").fetchall()
    assert found == [(2 * n, 2 * n + 1) for n in range(rows)]
