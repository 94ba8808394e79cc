"""Names as integers: given once, found again, forgotten when the transaction was rolled back."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from broker import cache
from broker.store.sqlite.names import Names
from broker.store.sqlite.rows import seed


@pytest.fixture
def database() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.execute("CREATE TABLE topics (id INTEGER PRIMARY KEY, name TEXT UNIQUE)")
        connection.execute(
            "CREATE TABLE publishers (id INTEGER PRIMARY KEY, client_id TEXT UNIQUE)"
        )
        yield connection


def test_a_name_gets_an_identifier_and_keeps_it(database: sqlite3.Connection) -> None:
    pairs = Names(database).pairs
    assert pairs["a", "x"] == (1, 1, seed("a", "x"))
    assert pairs["b", "x"] == (2, 1, seed("b", "x"))
    assert Names(database).pairs["b", "y"] == (2, 2, seed("b", "y"))


def test_what_was_rolled_back_gets_its_identifier_anew(database: sqlite3.Connection) -> None:
    known = Names(database)
    database.execute("BEGIN")
    assert known.pairs["a", "x"][:2] == (1, 1)
    database.execute("ROLLBACK")
    known.forget()
    assert known.pairs["b", "x"][:2] == (1, 1)
    assert known.pairs["a", "x"][:2] == (2, 1)


def test_the_names_in_memory_are_bounded(
    database: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "COUNT_MAX", 10)
    pairs = Names(database).pairs
    for i in range(25):
        assert pairs[f"t/{i}", "x"][:2] == (i + 1, 1)
        assert len(pairs) <= 10
    assert pairs["t/3", "x"][:2] == (4, 1)


def test_long_names_are_bounded_by_what_they_take_in_memory(database: sqlite3.Connection) -> None:
    """32,768 client identifiers of 65,535 bytes took 4 GB."""
    known = Names(database)
    for i in range(500):
        publisher = f"{i:05}".ljust(65_535)
        assert known.pairs["t", publisher][:2] == (1, i + 1)
        assert sum(len(topic) + len(of) for topic, of in known.pairs) <= cache.LENGTH_MAX
    assert len(known.pairs) > 50
    assert known.pairs["t", "00003".ljust(65_535)][:2] == (1, 4)
