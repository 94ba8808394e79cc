"""What is retained, its names and its count, by what the tables hold."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from broker.documents import CursorDocument, Put
from broker.errors import StoreConflict
from broker.message import Offset
from broker.store.sqlite.store import SqliteStore
from tests.support.messages import message
from tests.support.sqlite import ask, the_way_back
from tests.support.stores import retained


async def count(sqlite: SqliteStore) -> int:
    stats = await sqlite.stats()
    assert ask(sqlite.path, "SELECT count(*) FROM retained_names") == [(stats.retained,)]
    return stats.retained


async def test_a_retained_topic_is_found_by_its_name_as_long_as_it_has_a_message(
    sqlite: SqliteStore,
) -> None:
    first, second = message("1", "a", retain=True), message("2", "b", retain=True)
    await sqlite.append([first, second])
    newer = message("3", "a", retain=True)
    await sqlite.append([newer, message("", "b", retain=True), message("", "c", retain=True)])
    assert await count(sqlite) == 1
    assert await retained(sqlite, ["+"]) == [newer]
    assert await retained(sqlite, ["a", "b"]) == [newer]


async def test_what_is_undone_was_not_retained(sqlite: SqliteStore) -> None:
    kept = message("1", "a", retain=True)
    await sqlite.append([kept])
    refused = Put(CursorDocument("nobody", Offset(1), Offset(1), 1, b""))
    with pytest.raises(StoreConflict):
        await sqlite.append([message("2", "b", retain=True)], [refused])
    assert await count(sqlite) == 1
    assert await retained(sqlite, ["+"]) == [kept]


@pytest.mark.parametrize("at_once", [1, 500])
async def test_what_an_older_program_retained_is_found_and_forgotten(
    sqlite: SqliteStore, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr("broker.store.sqlite.retained.AT_ONCE_MAX", at_once)
    written = [message("1", f"t/{n}", retain=True, expires_at_us=n or None) for n in range(5)]
    await sqlite.append(written)
    await sqlite.close()
    with closing(sqlite3.connect(sqlite.path, isolation_level=None)) as connection:
        for statement in the_way_back(4):
            connection.execute(statement)
    await sqlite.open()
    assert await retained(sqlite, ["t/+"]) == written
    await sqlite.append([message("", "t/3", retain=True)])
    assert await count(sqlite) == 4
    await sqlite.forget_expired(2)
    assert await retained(sqlite, ["t/+"]) == [written[0], written[4]]
    assert await count(sqlite) == 2
