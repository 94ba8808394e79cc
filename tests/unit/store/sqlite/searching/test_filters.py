"""Which topics match a set of filters, and whose names are damaged."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from broker.store.sqlite.searching import filters, search
from broker.store.sqlite.searching.filters import Topics, WantedTopics

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


def known(topics: Topics, filters: list[str], newest: int) -> WantedTopics:
    while (wanted := topics.wanted(filters, newest, set())) is None:
        pass
    return wanted


def test_a_few_topics_are_found_by_filter_also_new_ones(database: sqlite3.Connection) -> None:
    topics = Topics(database)
    assert known(topics, ["a/+", "b"], topics.newest()).few == {2, 3, 4}
    database.execute("INSERT INTO topics (name) VALUES ('a/d')")
    assert known(topics, ["a/+", "b"], 5).few == {2, 3, 4}
    assert known(topics, ["a/+", "b"], topics.newest()).few == {2, 3, 4, 6}


@pytest.mark.parametrize("judged_max", [1, 100])
def test_of_many_topics_each_is_judged_when_it_is_met(
    database: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch, judged_max: int
) -> None:
    monkeypatch.setattr(filters, "FEW_TOPICS", 1)
    monkeypatch.setattr(filters, "JUDGED_MAX", judged_max)
    topics = Topics(database)
    for asked, found in [({1, 2, 5}, {2}), ({3}, {3}), ({2, 4, 99}, {2, 4})]:
        wanted = known(topics, ["a/+", "b"], 5)
        assert wanted.few is None
        assert wanted.among(asked) == found


def test_topics_are_looked_for_a_part_at_a_time(
    database: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "LOOKED_AT_MAX", 2)
    topics = Topics(database)
    assert topics.wanted(["+/c", "+/+/+"], 5, set()) is None
    assert known(topics, ["+/c", "+/+/+"], 5).few == {3, 5}


def test_sets_of_filters_that_were_not_used_lately_are_forgotten_first(
    database: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    topics = Topics(database)
    first, second = known(topics, ["a"], 5), known(topics, ["b"], 5)
    assert known(topics, ["a"], 5) is first
    monkeypatch.setattr(filters, "FILTERS_SIZE_MAX", 2)
    known(topics, ["c"], 5)
    assert known(topics, ["a"], 5) is first
    assert known(topics, ["b"], 5) is not second


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


def test_with_a_damaged_name_no_topic_is_looked_for_by_its_name(
    database: sqlite3.Connection,
) -> None:
    topics = Topics(database)
    assert known(topics, ["a/+", "b"], 5).few == {2, 3, 4}
    wanted = topics.wanted(["a/+", "b"], 5, {1})
    assert wanted is not None
    assert wanted.few is None
    assert wanted.among({1, 2, 3, 4, 5}) == {2, 3, 4}
