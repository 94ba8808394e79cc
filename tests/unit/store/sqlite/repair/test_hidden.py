"""Damage to the tables of retained messages is told, and hides what nobody can find only. (P8)"""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from broker.message import Message
from broker.store.sqlite.repair import hidden
from broker.store.sqlite.store import SqliteStore
from tests.support.messages import message
from tests.support.sqlite import change
from tests.support.stores import retained

TOPICS = 12
FILTERS = ("t/5", "t/+", "#", "t/5/#")


async def reopened(sqlite: SqliteStore, *damage: str) -> list[Message]:
    """What was retained before the damage."""
    written = [message(str(n), f"t/{n}", retain=True) for n in range(TOPICS)]
    await sqlite.append(written)
    await sqlite.close()
    change(sqlite.path, *damage)
    await sqlite.open()
    return written


@pytest.mark.parametrize("at_once", [1, 2, 5, TOPICS, 500])
@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE retained_names SET name = 't/u' WHERE name = 't/5'",
        "UPDATE retained_names SET name = 'A' WHERE name = 't/5'",
        "UPDATE retained_names SET topic_id = 77 WHERE name = 't/5'",
        "DELETE FROM retained_names WHERE name = 't/5'",
    ],
)
async def test_a_message_that_is_not_found_by_its_name_is_found_by_its_topic(
    sqlite: SqliteStore,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    damage: str,
    at_once: int,
) -> None:
    monkeypatch.setattr(hidden, "ROWS_AT_ONCE", at_once)
    monkeypatch.setattr("broker.store.sqlite.store.LOOK_WAIT_S", 30)  # On a busy machine, too.
    written = await reopened(sqlite, damage)
    for filter in FILTERS:
        expected = written if filter in ("t/+", "#") else [written[5]]
        assert await retained(sqlite, [filter]) == expected
    [told] = [text for text in caplog.messages if "tables of retained" in text]
    assert "found in another way: 1" in told


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ("UPDATE retained SET topic_id = 77 WHERE topic_id = 6", "that of 't/5', that of"),
        ("UPDATE retained SET offset = 77 WHERE topic_id = 6", "that of 't/5'"),
        ("UPDATE retained SET offset = 3 WHERE topic_id = 6", "that of 't/5'"),
        ("UPDATE topics SET name = 't/u' WHERE id = 6", "found in another way: 1"),
    ],
)
async def test_what_cannot_be_found_is_told_once(
    sqlite: SqliteStore, caplog: pytest.LogCaptureFixture, damage: str, told: str
) -> None:
    written = await reopened(sqlite, damage)
    for filter in FILTERS:
        found = await retained(sqlite, [filter])
        assert set(map(bytes, (m.payload for m in found))) <= {m.payload for m in written}
    [text] = [text for text in caplog.messages if "tables of retained" in text]
    assert told in text


async def test_nothing_is_told_of_sound_tables(
    sqlite: SqliteStore, caplog: pytest.LogCaptureFixture
) -> None:
    written = await reopened(sqlite, "UPDATE retained SET expires_at_us = 0")
    await sqlite.append([message("", "t/3", retain=True), message("new", "t/4", retain=True)])
    left = [*written[:3], *written[5:]]
    assert (await retained(sqlite, ["#"]))[:-1] == left
    assert sqlite.damaged_offsets == 0
    assert caplog.messages == []


async def test_what_is_retained_later_is_found_in_the_other_way_too(sqlite: SqliteStore) -> None:
    await reopened(sqlite, "DELETE FROM retained_names WHERE name = 't/5'")
    assert len(await retained(sqlite, ["#"])) == TOPICS
    newer = message("newer", "t/5", retain=True)
    await sqlite.append([newer])
    assert await retained(sqlite, ["t/5"]) == [newer]
    await sqlite.append([message("", "t/5", retain=True)])
    assert await retained(sqlite, ["t/5"]) == []


def test_a_page_that_cannot_be_read_ends_the_walk(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    walk = hidden.Hidden()
    with closing(sqlite3.connect(":memory:")) as empty:

        class Damaged(sqlite3.DatabaseError):
            sqlite_errorcode = sqlite3.SQLITE_CORRUPT

        def fail(*_: object) -> None:
            raise Damaged("database disk image is malformed")

        monkeypatch.setattr(walk, "_look_by_topic", fail)
        walk.part(empty)
    assert walk.done
    assert "what cannot be read at all" in caplog.text
