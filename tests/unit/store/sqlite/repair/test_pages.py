"""Rows read without SQLite are those that SQLite has, and damage is passed over."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from broker.store.sqlite.repair.pages import Layout, Pages, Row

pytestmark = pytest.mark.long

SIZE = 512
"""So that trees are high and rows overflow."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.db"


@pytest.fixture
def connection(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA page_size = {SIZE}")
        yield connection


def opened(path: Path) -> Pages:
    """Its descriptor is closed with the process."""
    last = path.stat().st_size // SIZE
    position = {number: (number - 1) * SIZE for number in range(1, last + 1)}
    return Pages(os.open(path, os.O_RDONLY), Layout(SIZE), position.get)


def root(connection: sqlite3.Connection, name: str) -> int:
    sql = "SELECT rootpage FROM sqlite_schema WHERE name = ?"
    (found,) = connection.execute(sql, (name,)).fetchone()
    assert isinstance(found, int)
    return found


VALUES = (
    *(
        None,
        0,
        1,
        -1,
        127,
        -128,
        300,
        -(1 << 15),
        1 << 20,
        1 << 31,
        -(1 << 40),
        1 << 62,
        -(1 << 63),
    ),
    *(1.5, "", "t", "ü" * 300, b"", b"\x00\xff", bytes(range(256)) * 20),
)


def test_values_of_every_type_and_size_are_read(connection: sqlite3.Connection, path: Path) -> None:
    connection.execute("CREATE TABLE things (id INTEGER PRIMARY KEY, a, b)")
    rowids = [1, 2, 300, 1 << 20, (1 << 56) - 1, 1 << 56, (1 << 63) - 1, -1]
    rows = [(i + 10, value, b"x" * i) for i, value in enumerate(VALUES)]
    rows += [(rowid, "rowid", b"") for rowid in rowids]
    connection.executemany("INSERT INTO things VALUES (?, ?, ?)", rows)
    found = [*opened(path).tree(root(connection, "things"))]
    assert found == [Row(rowid, [None, *rest]) for rowid, *rest in sorted(rows)]


def test_a_table_without_rowid_has_rows_also_between_its_pages(
    connection: sqlite3.Connection, path: Path
) -> None:
    connection.execute("CREATE TABLE names (name TEXT PRIMARY KEY, n) WITHOUT ROWID")
    rows = [(f"{n:05}" * (1 + n % 60), n) for n in range(2000)]
    connection.executemany("INSERT INTO names VALUES (?, ?)", rows)
    pages = opened(path)
    found = [tuple(row.values) for row in pages.tree(root(connection, "names"))]
    assert sorted(found, key=str) == sorted(rows, key=str)
    assert pages.unreadable == 0


def test_a_damaged_page_costs_its_own_rows_and_is_counted(
    connection: sqlite3.Connection, path: Path
) -> None:
    connection.execute("CREATE TABLE things (id INTEGER PRIMARY KEY, a)")
    connection.executemany("INSERT INTO things VALUES (?, ?)", [(n, "a" * 40) for n in range(500)])
    content = path.read_bytes()
    leaves = [at for at in range(0, len(content), SIZE) if content[at] == 0x0D]
    with path.open("r+b") as file:
        file.seek(leaves[7])
        file.write(b"\xff" * SIZE)
    pages = opened(path)
    found = [row.rowid for row in pages.tree(root(connection, "things"))]
    assert pages.unreadable == 1
    assert 480 < len(found) < 500
    assert found == sorted(found)


def test_a_tree_that_leads_back_to_itself_ends(connection: sqlite3.Connection, path: Path) -> None:
    connection.execute("CREATE TABLE things (id INTEGER PRIMARY KEY, a)")
    connection.executemany("INSERT INTO things VALUES (?, ?)", [(n, "a" * 40) for n in range(500)])
    number = root(connection, "things")
    with path.open("r+b") as file:
        file.seek((number - 1) * SIZE + 8)
        file.write(number.to_bytes(4, "big"))
    assert len([*opened(path).tree(number)]) < 500


def test_rows_of_a_page_are_read_whatever_it_says_of_their_number(
    connection: sqlite3.Connection, path: Path
) -> None:
    connection.execute("CREATE TABLE things (id INTEGER PRIMARY KEY, a)")
    connection.executemany("INSERT INTO things VALUES (?, ?)", [(n, "a" * 40) for n in range(9)])
    pages = opened(path)
    content = pages.page(root(connection, "things"))
    assert content is not None
    for count in (0, 3, 9, 60_000):
        damaged = content[:3] + count.to_bytes(2, "big") + content[5:]
        assert [row.rowid for row in pages.rows(damaged)] == [*range(9)]
    assert pages.columns(content) == 2


@pytest.mark.parametrize("seed", range(5))
def test_no_damage_raises(connection: sqlite3.Connection, path: Path, seed: int) -> None:
    connection.execute("CREATE TABLE things (id INTEGER PRIMARY KEY, a, b)")
    rows = [(i, value, b"x" * 40) for i, value in enumerate(VALUES * 5)]
    connection.executemany("INSERT INTO things VALUES (?, ?, ?)", rows)
    number = root(connection, "things")
    content = bytearray(path.read_bytes())
    for at in range(seed, len(content), 37):
        content[at] ^= 1 << (at + seed) % 8
    path.write_bytes(content)
    pages = opened(path)
    assert len([*pages.tree(number)]) <= len(rows)
    for at in range(0, len(content), SIZE):
        page = pages.at(at)
        assert page is not None
        assert len([*pages.rows(page)]) <= SIZE // 2


def test_what_is_not_there_is_no_page(connection: sqlite3.Connection, path: Path) -> None:
    connection.execute("CREATE TABLE things (a)")
    pages = opened(path)
    assert pages.page(99) is None
    assert pages.at(1 << 40) is None
    assert [*pages.tree(99)] == []
    assert pages.unreadable == 1
