"""What retention removed unread: who missed it hears of it, also where that is damaged. (P5, P8)"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from broker.message import Offset
from broker.store.removing import as_ranges
from broker.store.sqlite.files.new_file import new_file
from broker.store.sqlite.repair.remains import Remains
from broker.store.sqlite.repair.salvaging import Salvage
from broker.store.sqlite.retention.trimming import Trimming
from broker.store.sqlite.retention.unread import checksum
from broker.store.sqlite.store import SqliteStore
from tests.support.messages import message, numbered
from tests.support.sqlite import ask, change, opened, problems
from tests.support.stores import END

pytestmark = pytest.mark.long

REMOVED = [*range(1, 41)]
UNREAD = {5, 6, 7, 33}
"""On the topic `t`."""


@pytest.fixture
async def log(sqlite: SqliteStore) -> SqliteStore:
    """Of 1,200 messages on two topics the first 40 are removed, some of them unread."""
    await sqlite.append(numbered(1200, lambda n: "t" if n in UNREAD or n > 40 else "other"))
    await take_out(sqlite, REMOVED, UNREAD)
    return sqlite


async def take_out(store: SqliteStore, offsets: list[int], unread: set[int]) -> None:
    await store._thread.run(Trimming(store._writer).take_out, offsets, unread)
    store.removing.has_unread = True


async def told(store: SqliteStore, *filters: str) -> list[range]:
    return list((await store.read(Offset(1), END, filters)).removed)


async def damaged(store: SqliteStore, statement: str) -> None:
    await store.close()
    change(store.path, statement)
    await store.open()


async def test_who_wanted_it_is_told(log: SqliteStore) -> None:
    assert await told(log, "t") == as_ranges(sorted(UNREAD))
    assert await told(log, "other") == []
    assert problems(log.path) == []


async def test_every_flipped_bit_is_noticed(log: SqliteStore) -> None:
    """And who missed something is told all the same, unless it is of another block by now."""
    [(block, topic_id, places, crc)] = ask(log.path, "SELECT * FROM removed_unread")
    assert isinstance(places, bytes)
    flipped = [f"block = {1 << n}" for n in range(20)]
    flipped += [f"topic_id = topic_id + {1 << n}" for n in range(20)]
    flipped += [f"crc = (crc | {1 << n}) - (crc & {1 << n})" for n in range(32)]
    for n in range(len(places) * 8):
        other = bytearray(places)
        other[n // 8] ^= 1 << n % 8
        flipped.append(f"offsets = x'{other.hex()}'")
    await log.close()
    for statement in flipped:
        change(log.path, f"UPDATE removed_unread SET {statement}")
        assert problems(log.path) != [], statement
        async with opened(log.path) as store:
            missed = {offset for part in await told(store, "t") for offset in part}
            assert missed >= UNREAD or statement.startswith("block"), statement
        change(
            log.path,
            "DELETE FROM removed_unread",
            f"INSERT INTO removed_unread VALUES ({block}, {topic_id}, x'{places.hex()}', {crc})",
        )
        assert problems(log.path) == []
    await log.open()


async def test_damage_is_told_once_and_nobody_misses_what_it_hides(
    log: SqliteStore, caplog: pytest.LogCaptureFixture
) -> None:
    await damaged(log, "UPDATE removed_unread SET offsets = x'0001'")
    for topic_filter in ("t", "other", "#"):
        assert await told(log, topic_filter) == [range(1, 41)]
    assert len([said for said in caplog.messages if "1023 is damaged" in said]) == 1


async def test_of_a_topic_that_is_not_there_it_is_told_too(log: SqliteStore) -> None:
    await damaged(log, f"UPDATE removed_unread SET topic_id = 77, crc = {checksum(0, 77, b'')}")
    assert await told(log, "t") == [range(1, 41)]
    assert any("removed unread from block 0" in said for said in problems(log.path))


async def test_what_is_added_to_a_damaged_row_does_not_make_it_sound(log: SqliteStore) -> None:
    await damaged(log, "UPDATE removed_unread SET offsets = x'0001'")
    await take_out(log, [41, 42], {41, 42})
    assert await told(log, "t") == [range(1, 43)]
    assert problems(log.path) != []


async def test_a_row_of_an_older_program_is_believed_and_gets_its_checksum(
    log: SqliteStore,
) -> None:
    await damaged(log, "UPDATE removed_unread SET crc = NULL")
    assert await told(log, "t") == as_ranges(sorted(UNREAD))
    assert problems(log.path) == []
    await take_out(log, [41], {41})
    assert ask(log.path, "SELECT crc IS NULL FROM removed_unread") == [(0,)]
    assert await told(log, "t") == as_ranges(sorted({*UNREAD, 41}))


@pytest.mark.parametrize("places", ["00", "0005ffff", "0005000101"])
async def test_but_not_where_it_makes_no_sense(log: SqliteStore, places: str) -> None:
    await damaged(log, f"UPDATE removed_unread SET crc = NULL, offsets = x'{places}'")
    assert await told(log, "t") == [range(1, 41)]
    assert problems(log.path) != []


async def test_check_knows_what_cannot_have_been_removed(log: SqliteStore) -> None:
    """Offset 300 is there."""
    await damaged(log, "UPDATE removed_unread SET crc = NULL, offsets = x'0005012c'")
    assert any("removed unread from block 0" in said for said in problems(log.path))


async def test_salvage_keeps_what_is_sound_of_it(log: SqliteStore, tmp_path: Path) -> None:
    """Also of a topic that has no other message."""
    await log.append([message("x", "gone")])
    await take_out(log, [1201], {1201})
    await log.close()
    new = await salvaged(log, tmp_path / "new")
    async with opened(new) as store:
        assert await told(store, "t") == as_ranges(sorted(UNREAD))
        assert await told(store, "gone") == [range(1201, 1202)]
    change(log.path, "UPDATE removed_unread SET offsets = x'0001' WHERE block = 0")
    new = await salvaged(log, tmp_path / "again", refused=1)
    async with opened(new) as store:
        assert await told(store, "gone") == [range(1201, 1202)]
    await log.open()


async def salvaged(store: SqliteStore, to: Path, refused: int = 0) -> Path:
    with closing(Remains(store.path)) as remains, new_file(to) as new:
        work = Salvage(remains, new.connection, to, lambda *_: None, lambda done, total: None)
        assert work.run(Offset(0)).refused == refused
    assert problems(to) == []
    return to


async def test_a_publisher_that_is_not_listed_is_noticed(sqlite: SqliteStore) -> None:
    await sqlite.append([message("m", publisher=f"p/{n % 3}") for n in range(2100)])
    await sqlite.close()
    rows = {(block, publisher) for block in (0, 1) for publisher in (1, 2, 3)}
    assert {*ask(sqlite.path, "SELECT block, publisher_id FROM publisher_blocks")} == rows
    for block, publisher in sorted(rows):
        for damage, said in (
            (f"publisher_id = {publisher + 64}", f"{publisher} is not listed in block {block}"),
            (f"publisher_id = {publisher + 64}", f"{publisher + 64}, listed in block {block}, is"),
            (f"block = {block + 2}", f"{publisher} is not listed in block {block}"),
        ):
            where = f"WHERE block = {block} AND publisher_id = {publisher}"
            change(sqlite.path, f"UPDATE publisher_blocks SET {damage} {where}")
            found = problems(sqlite.path)
            change(
                sqlite.path,
                f"DELETE FROM publisher_blocks WHERE publisher_id = {publisher + 64} OR block > 1",
                f"INSERT INTO publisher_blocks VALUES ({block}, {publisher})",
            )
            assert any(said in each for each in found), (said, found)
            assert problems(sqlite.path) == []
    await sqlite.open()
