"""Removing from a database: figures, index, checks and reads agree afterwards."""

from __future__ import annotations

import random
from typing import Any

import pytest

from broker.documents import Put, SessionDocument
from broker.errors import StoreCorrupt
from broker.message import Offset
from broker.store.removing import SEGMENT, Cut, Order
from broker.store.sqlite.retention import removable, unread
from broker.store.sqlite.store import SqliteStore
from tests.support.messages import message, numbered
from tests.support.sqlite import ask, change, opened, problems
from tests.support.stores import END, read_all

ALL = Cut(END, END)


async def remove(store: SqliteStore, topics: set[str], before: int, **order: Any) -> int:
    removed = 0
    position = Offset(0)
    while segments := await store.removing.segments(position):
        for segment in segments:
            names = await store.removing.topic_names(segment.topics)
            cuts = {n: Cut(Offset(before), END) for n, name in names.items() if name in topics}
            part = Order(segment.first, segment.last, cuts, **order)
            while not (result := await store.removing.remove(part, 100)).done:
                removed += result.amount.messages
            removed += result.amount.messages
        position = Offset(segments[-1].last + 1)
    return removed


@pytest.mark.parametrize("seed", range(5))
async def test_a_check_finds_nothing_wrong_whatever_was_removed(
    sqlite: SqliteStore, seed: int
) -> None:
    chance = random.Random(seed)
    topics = [f"t/{n}" for n in range(4)]
    expected = []
    for _ in range(8):
        batch = [
            message(chance.randbytes(5), chance.choice(topics), retain=chance.random() < 0.01)
            for _ in range(chance.randrange(800))
        ]
        await sqlite.append(batch)
        expected += batch
        before = chance.randrange(sqlite.high_watermark + 2)
        gone = {topic for topic in topics if chance.random() < 0.5}
        retained = {found.offset for found in await _retained(sqlite)}
        await remove(sqlite, gone, before)
        expected = [
            m
            for m in expected
            if not (m.topic in gone and m.offset < before) or m.offset in retained
        ]
        if chance.random() < 0.3:
            await sqlite.removing.advance()
        if chance.random() < 0.3:
            await sqlite.close()
            await sqlite.open()
        here = [m for m in expected if m.offset >= sqlite.log_start]
        assert await read_all(sqlite) == here
        assert (await sqlite.stats()).messages == len(here)
        for topic in topics:
            assert await read_all(sqlite, [topic]) == [m for m in here if m.topic == topic]
        assert problems(sqlite.path) == []
    await sqlite.close()
    assert problems(sqlite.path, at_rest=True) == []


async def _retained(store: SqliteStore) -> list[Any]:
    return (await store.fetch(await store.retained(["#"]))).messages


async def test_the_newest_offsets_are_known_after_a_kill_in_the_middle(sqlite: SqliteStore) -> None:
    """P2: the newest messages are gone, and the log start has not moved yet."""
    await sqlite.append(numbered(1500, lambda n: "kept" if n == 1 else "t"))
    await remove(sqlite, {"t"}, END)
    copied = sqlite.path.with_name("copy.db")
    for suffix in ("", "-wal", "-note"):
        found = sqlite.path.with_name(f"{sqlite.path.name}{suffix}")
        if found.exists():
            copied.with_name(f"copy.db{suffix}").write_bytes(found.read_bytes())
    async with opened(copied) as store:
        assert store.high_watermark == 1500
        assert [m.offset for m in await read_all(store)] == [1]
        await store.append([message("next")])
        assert store.high_watermark > 1500
    assert problems(copied, at_rest=True) == []


async def test_a_damaged_segment_is_not_touched(sqlite: SqliteStore) -> None:
    await sqlite.append(numbered(1500))
    await sqlite.close()
    change(sqlite.path, "UPDATE topic_blocks SET messages = messages + 1 WHERE block = 0")
    await sqlite.open()
    [segment, *_] = await sqlite.removing.segments(Offset(0))
    order = Order(segment.first, segment.last, dict.fromkeys(segment.topics, ALL))
    with pytest.raises(StoreCorrupt, match="do not add up"):
        await sqlite.removing.remove(order, SEGMENT)
    assert ask(sqlite.path, "SELECT count(*) FROM messages") == [(1500,)]


async def test_what_is_said_to_be_removed_and_is_there_is_a_problem(sqlite: SqliteStore) -> None:
    await sqlite.append(numbered(1500))
    await remove(sqlite, {"t"}, 100)
    await sqlite.close()
    change(sqlite.path, "UPDATE removed SET messages = 98, newest = 7")
    found = problems(sqlite.path, at_rest=True)
    assert "what was removed from block 0 does not add up" in found
    change(
        sqlite.path,
        "UPDATE removed SET offsets = CAST(zeroblob(100) || x'ff' || zeroblob(27) AS BLOB)",
    )
    found = problems(sqlite.path, at_rest=True)
    assert "the message at offset 800 is said to be removed, and is there" in found
    async with opened(sqlite.path) as store:
        read = await store.read(Offset(1), END)
    assert read.damaged == [range(1, 100)]


async def test_the_pages_of_what_went_are_used_again(sqlite: SqliteStore) -> None:
    await sqlite.append([message(b"x" * 1000) for _ in range(2000)])
    await sqlite.close()
    before = sqlite.path.stat().st_size
    await sqlite.open()
    for _ in range(3):
        await remove(sqlite, {"t"}, END)
        await sqlite.removing.advance()
        await sqlite.append([message(b"x" * 1000) for _ in range(2000)])
    await sqlite.close()
    assert sqlite.path.stat().st_size < 1.2 * before


async def test_there_is_no_end_of_segments_that_an_older_program_wrote(
    sqlite: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their figures are counted, a few blocks at a time."""
    monkeypatch.setattr(removable, "COUNTED_MAX", 2)
    await sqlite.append(numbered(6000))
    await sqlite.close()
    change(
        sqlite.path,
        "UPDATE topic_blocks SET messages = NULL, bytes = NULL, newest_at_us = NULL,"
        " checksums = NULL",
        "DELETE FROM blocks",
        "UPDATE log SET accounted_from = 6001",
    )
    await sqlite.open()
    found = []
    position = Offset(0)
    while segments := await sqlite.removing.segments(position):
        found += [(s.first, sum(a.messages for a in s.topics.values())) for s in segments]
        position = Offset(segments[-1].last + 1)
    assert found == [(0, 1023), *[(n * 1024, 1024) for n in range(1, 5)], (5120, 881)]
    assert await remove(sqlite, {"t"}, 5500) == 5499
    assert [m.offset for m in await read_all(sqlite, ["t"])] == list(range(5500, 6001))


async def test_much_that_went_unread_is_told_in_several_reads(
    sqlite: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unread, "ROWS_AT_ONCE", 2)
    await sqlite.append(numbered(9000))
    size = (await sqlite.removing.segments(Offset(0)))[0].topics[1].bytes * 8
    position = Offset(0)
    for segment in await sqlite.removing.segments(position):
        cuts = {1: Cut(Offset(0), Offset(0))}
        order = Order(segment.first, segment.last, cuts, over_bytes=size, unread=True)
        await sqlite.removing.remove(order, SEGMENT)
    for _ in range(2):
        told: set[int] = set()
        reads = 0
        position = Offset(1)
        while position <= sqlite.high_watermark:
            read = await sqlite.read(position, END, ["t"])
            told |= {offset for part in read.removed for offset in part}
            reads += 1
            position = read.next
        assert len(told) == 9000
        assert reads > 2
        await sqlite.removing.advance()
        await sqlite.close()
        await sqlite.open()


async def test_names_of_publishers_of_an_old_log_stay_until_it_is_gone(sqlite: SqliteStore) -> None:
    """Nobody knows in which of its blocks they are."""
    publishers = [message("m", publisher=f"p/{n}") for n in range(3000)]
    await sqlite.append(publishers, [Put(SessionDocument("s", 1, 1, None))])
    await sqlite.close()
    change(sqlite.path, "UPDATE log SET publishers_from = 2", "DELETE FROM publisher_blocks")
    await sqlite.open()
    await remove(sqlite, {"t"}, 2040)
    await sqlite.removing.advance()
    assert await sqlite.removing.forget_names() == 0
    await remove(sqlite, {"t"}, 2900)
    await sqlite.removing.advance()
    assert await sqlite.removing.forget_names() == 2899
    assert len(await read_all(sqlite)) == 101


async def test_free_pages_are_told_without_what_the_file_has_still_to_grow_by(
    sqlite: SqliteStore,
) -> None:
    await sqlite.append([message(b"x" * 1000) for _ in range(2000)])
    assert -4_000_000 < await sqlite.removing.free_bytes() < -1_000_000
    await sqlite.close()
    await sqlite.open()
    assert 0 <= await sqlite.removing.free_bytes() < 100_000
    await remove(sqlite, {"t"}, END)
    assert 1_000_000 < await sqlite.removing.free_bytes() < 4_000_000
