"""Which topics match a set of filters, and whose names are damaged."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from broker.store.sqlite.filters import TopicFilters, Topics

NAMES = ("a", "a/b", "a/c", "b", "longer/than/others")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "topics.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("CREATE TABLE topics (id INTEGER PRIMARY KEY, name TEXT UNIQUE)")
        connection.executemany("INSERT INTO topics (name) VALUES (?)", [(n,) for n in NAMES])
    return path


@pytest.fixture
def database(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection


def test_topics_are_found_by_filter_up_to_the_newest(database: sqlite3.Connection) -> None:
    topics = Topics(database)
    assert topics.ids(["a/+", "b"], topics.newest()) == {2, 3, 4}
    database.execute("INSERT INTO topics (name) VALUES ('a/d')")
    assert topics.ids(["a/+", "b"], 5) == {2, 3, 4}
    assert topics.ids(["a/+", "b"], topics.newest()) == {2, 3, 4, 6}


def test_number_sign_matches_every_topic_but_those_of_the_server(
    database: sqlite3.Connection,
) -> None:
    """[MQTT-4.7.2-1]"""
    topics = Topics(database)
    assert topics.every(["x", "#"])
    assert not topics.every(["+"])
    database.execute("INSERT INTO topics (name) VALUES ('$SYS/x')")
    assert not topics.every(["#"])


def test_a_name_that_differs_from_its_index_is_suspect(path: Path) -> None:
    data = path.read_bytes()
    assert data.count(b"longer/than/others") == 2
    for at in (data.index(b"longer/than"), data.rindex(b"longer/than")):
        flipped = bytearray(data)
        flipped[at] ^= 1
        path.write_bytes(flipped)
        with closing(sqlite3.connect(path)) as connection:
            assert Topics(connection).suspects() == {5}
    path.write_bytes(data)
    with closing(sqlite3.connect(path)) as connection:
        assert Topics(connection).suspects() == set()


def test_a_name_matches_by_any_of_the_filters() -> None:
    filters = TopicFilters(["a/+", "b"])
    assert [name for name in NAMES if filters.match(name)] == ["a/b", "a/c", "b"]
