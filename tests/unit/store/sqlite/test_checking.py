"""What `check` finds, and that a read finds damage as well. (S8)"""

from __future__ import annotations

import os
import re

import pytest

from broker.documents import CursorDocument, Put, SessionDocument
from broker.message import Offset
from broker.store import Read
from broker.store.sqlite.store import SqliteStore
from tests.support.messages import message
from tests.support.sqlite import change
from tests.support.stores import END, payloads


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE messages SET payload = x'53756e6e79' WHERE offset = 2",
        "UPDATE messages SET properties = x'00' WHERE offset = 2",
        "UPDATE messages SET qos = 2 WHERE offset = 2",
        "UPDATE messages SET retain = 1 WHERE offset = 2",
        "UPDATE messages SET published_at_us = published_at_us + (1 << 40) WHERE offset = 2",
        "UPDATE messages SET expires_at_us = 1 WHERE offset = 2",
        "UPDATE messages SET topic_id = 1 WHERE offset = 2",
        "UPDATE messages SET topic_id = 99 WHERE offset = 2",
        "UPDATE messages SET publisher_id = 1 WHERE offset = 2",
        "UPDATE messages SET crc = crc + 1 WHERE offset = 2",
        "UPDATE topics SET name = 'weathes' WHERE id = 2",
        "UPDATE publishers SET client_id = '2' WHERE id = 2",
    ],
)
async def test_damage_is_found_and_named_without_the_payload(
    sqlite: SqliteStore, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    await sqlite.append(
        [message("1", "a", publisher="x"), message("Rainy"), message("3", "a", publisher="x")]
    )
    await sqlite.close()
    change(sqlite.path, damage)
    await sqlite.open()
    for filters in (None, ["#"]):
        read = await sqlite.read(Offset(1), END, filters)
        assert payloads(read.messages) == [b"1", b"3"]
        assert (read.damaged, read.next) == ([range(2, 3)], 4)
    assert await sqlite.read(Offset(1), END, ["a"]) == Read(read.messages, Offset(4), [range(2, 3)])
    fetched = await sqlite.fetch([Offset(1), Offset(2), Offset(3)])
    assert fetched == Read(read.messages, Offset(4), [range(2, 3)])
    [told] = caplog.messages
    assert "2-2" in told
    assert "Rainy" not in told
    assert any("offset 2" in problem for problem in await sqlite.check())
    assert payloads((await sqlite.read(Offset(1), Offset(1))).messages) == [b"1"]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("DELETE FROM topic_blocks WHERE topic_id = 2", "offset 2 is not indexed"),
        ("INSERT INTO blocks VALUES (0, 3, 2, 2, 1, 1)", "the figures of block 0 do not add up"),
        ("UPDATE messages SET offset = 9 WHERE offset = 2", "offsets 2 to 8 are gone"),
        ("UPDATE retained SET offset = 7", "the retained message of topic 1 is not there"),
        ("UPDATE retained SET offset = 2", "offset 2 is of topic 2, not 1"),
        ("UPDATE cursors SET offset = 9", r"the cursor of sub1 \(9\) is above"),
        ("UPDATE retained_names SET name = 'b'", r"offset 1 is not found by its name \(a\)"),
        ("INSERT INTO retained VALUES (55, 1, 0)", "refers to nothing in topics"),
    ],
)
async def test_check_finds_what_does_not_fit_together(
    sqlite: SqliteStore, damage: str, said: str
) -> None:
    cursor = CursorDocument("sub1", Offset(1), Offset(1), 1, b"")
    await sqlite.append(
        [message("1", "a", retain=True), message("2", "b")],
        [Put(SessionDocument("sub1", 1, 1, None)), Put(cursor)],
    )
    assert await sqlite.check() == []
    await sqlite.close()
    change(sqlite.path, damage)
    await sqlite.open()
    problems = await sqlite.check()
    assert any(re.search(said, problem) for problem in problems)


async def test_check_compares_the_figures_of_each_topic_with_its_messages(
    sqlite: SqliteStore,
) -> None:
    """Also of figures that add up to those of their block."""
    await sqlite.append([message(str(i), f"t/{i % 4}") for i in range(2500)])
    await sqlite.trim(Offset(5))
    assert await sqlite.check() == []
    await sqlite.close()
    change(
        sqlite.path,
        "UPDATE topic_blocks SET messages = messages + 1 WHERE block = 1 AND topic_id = 2",
        "UPDATE topic_blocks SET messages = messages - 1 WHERE block = 1 AND topic_id = 3",
    )
    await sqlite.open()
    assert await sqlite.check() == [
        "the figures of topic 2 in block 1 do not add up",
        "the figures of topic 3 in block 1 do not add up",
    ]


async def test_check_survives_a_torn_file(sqlite: SqliteStore) -> None:
    await sqlite.append([message(bytes(1000)) for _ in range(2000)])
    await sqlite.close()
    with sqlite.path.open("r+b") as file:
        file.seek(100 * 4096)
        file.write(os.urandom(20 * 4096))
    await sqlite.open()
    assert await sqlite.check() != []
