"""Which names match a set of filters, and how many are looked at for that."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from broker.message import Offset
from broker.store.sqlite.searching import search
from broker.store.sqlite.searching.search import Search, TopicFilters, in_order, next_candidate
from broker.topics import matches

LEVELS = ("", "a", "a-b", "a0", "b", "$x")


@pytest.fixture
def database() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.execute("CREATE TABLE names (name TEXT PRIMARY KEY, value) WITHOUT ROWID")
        yield connection


def store(database: sqlite3.Connection, names: list[str]) -> None:
    database.executemany("INSERT INTO names VALUES (?, ?)", [(n, i) for i, n in enumerate(names)])


def found(database: sqlite3.Connection, *filters: str) -> list[int]:
    looking = Search("SELECT name, value FROM names", TopicFilters(filters))
    values: list[int] = []
    while not looking.done:
        values += looking.part(database)
    assert len({*values}) == len(values)
    return sorted(values)


def test_a_name_matches_by_any_of_the_filters() -> None:
    filters = TopicFilters(["a/+", "b"])
    assert [n for n in ("a", "a/b", "a/c", "b", "c") if filters.match(n)] == ["a/b", "a/c", "b"]


def some_name(chosen: random.Random, levels: tuple[str, ...] = LEVELS) -> str:
    return "/".join(chosen.choices(levels, k=chosen.randint(1, 4))) or "a"


@pytest.mark.parametrize("part", [1, 3, 1000])
def test_every_name_that_matches_is_found_however_small_the_parts(
    database: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch, part: int
) -> None:
    monkeypatch.setattr(search, "LOOKED_AT_MAX", part)
    chosen = random.Random(part)
    names = sorted({some_name(chosen) for _ in range(300)})
    store(database, names)
    for _ in range(100):
        filters = [some_name(chosen, (*LEVELS, "+", "+")) for _ in range(chosen.choice((1, 1, 4)))]
        if chosen.random() < 0.3:
            filters[0] += "/#"
        wanted = [i for i, n in enumerate(names) if any(matches(f, n) for f in filters)]
        assert found(database, *filters) == wanted, filters


def test_no_match_lies_before_the_next_candidate() -> None:
    chosen = random.Random(1)
    names = sorted({some_name(chosen) for _ in range(300)})
    for _ in range(3000):
        filter, name = some_name(chosen, (*LEVELS, "+", "+")), chosen.choice(names)
        if not matches(filter, name):
            candidate = next_candidate(filter, name)
            assert name < candidate
            between = [n for n in names if name <= n < candidate and matches(filter, n)]
            assert between == [], (filter, name, candidate)


def test_what_lies_between_two_levels_is_left_out(
    database: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(database, [f"site/{i}/{n:04}" for i in range(10) for n in range(1000)])
    monkeypatch.setattr(search, "LOOKED_AT_MAX", 50)
    looking = Search("SELECT name, value FROM names", TopicFilters(["site/+/0500"]))
    assert looking.part(database) == [*range(500, 10_000, 1000)]
    assert looking.done


def test_offsets_are_sorted() -> None:
    offsets = [Offset(n * 7919 % 1_000_003) for n in range(10_000)]
    assert in_order(offsets) == sorted(offsets)


def test_an_offset_that_damage_has_made_something_else_is_left_out() -> None:
    assert in_order([70_000, None, 3, b"x"]) == [3, 70_000]
