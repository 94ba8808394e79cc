"""A damaged block: what can be read of it is read, the rest is named, and told once. (P8)"""

from __future__ import annotations

from contextlib import suppress
from itertools import product
from pathlib import Path

import pytest

from broker.documents import CursorDocument, Put, SessionDocument, SubscriptionDocument
from broker.errors import StoreError
from broker.message import Message, Offset
from broker.store import Read, Stretch
from broker.store.removing import Cut, Order
from broker.store.sqlite.retention.trimming import Trimming
from broker.store.sqlite.rows import BLOCK_SHIFT
from broker.store.sqlite.store import SqliteStore
from tests.support import flips
from tests.support.messages import message
from tests.support.sqlite import change, misfit, problems
from tests.support.stores import END
from tests.support.trials import trials
from tests.support.world import subscription

pytestmark = pytest.mark.long

BLOCK = 1 << BLOCK_SHIFT
TRIALS = trials(20)


def written(count: int = 2 * BLOCK + 100) -> list[Message]:
    return [message(str(i), f"t/{i % 5}") for i in range(1, count + 1)]


async def damage(sqlite: SqliteStore, messages: list[Message], *statements: str) -> None:
    await sqlite.append(messages)
    await sqlite.close()
    change(sqlite.path, *statements)
    await sqlite.open()


async def read(
    store: SqliteStore, filters: tuple[str, ...] | None
) -> tuple[list[Offset], list[range]]:
    messages, damaged = await flips.read_everything(store, filters)
    return [message.offset for message in messages], damaged


LOST = "DELETE FROM messages WHERE offset = {}"
MOVED = "UPDATE messages SET offset = {0} + (1 << 12) WHERE offset = {0}"
MOVED_FAR = "UPDATE messages SET offset = {0} + (1 << 30) WHERE offset = {0}"
OTHER_TOPIC = "UPDATE messages SET topic_id = topic_id % 5 + 1 WHERE offset = {}"


@pytest.mark.parametrize(
    ("offset", "statement"),
    [
        *product((1, 17, BLOCK - 1, BLOCK, 2 * BLOCK + 50), (LOST, MOVED, OTHER_TOPIC)),
        (17, MOVED_FAR),  # A million blocks, of which all but one are empty.
    ],
)
async def test_a_message_that_is_gone_is_named_to_whoever_wanted_it(
    sqlite: SqliteStore, caplog: pytest.LogCaptureFixture, offset: int, statement: str
) -> None:
    messages = written()
    await damage(sqlite, messages, statement.format(offset))
    rest = [m for m in messages if m.offset != offset]
    for filters in (None, ("#",), (f"t/{offset % 5}",), tuple(f"t/{i}" for i in range(20))):
        wanted = [
            m.offset for m in rest if filters != (f"t/{offset % 5}",) or m.topic == filters[0]
        ]
        found, damaged = await read(sqlite, filters)
        assert (found, damaged[0]) == (wanted, range(offset, offset + 1))
        assert (len(damaged) > 1) == (statement in (MOVED, MOVED_FAR))
    assert len([text for text in caplog.messages if f"{offset}-{offset}" in text]) == 1


@pytest.mark.parametrize("offset", [1, 17, BLOCK - 1, BLOCK])
async def test_who_wanted_another_topic_of_a_full_block_is_told_nothing(
    sqlite: SqliteStore, offset: int
) -> None:
    messages = written()
    await damage(sqlite, messages, LOST.format(offset))
    other = f"t/{(offset + 1) % 5}"
    wanted = [m.offset for m in messages if m.topic == other]
    assert await read(sqlite, (other,)) == (wanted, [])


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM topic_blocks WHERE topic_id = 2 AND block = 1",
        "UPDATE topic_blocks SET topic_id = 66 WHERE topic_id = 2 AND block = 1",
        "UPDATE topic_blocks SET block = 65 WHERE topic_id = 2 AND block = 1",
        "UPDATE topic_blocks SET messages = messages + 1 WHERE topic_id = 2 AND block = 1",
        "DELETE FROM blocks WHERE block = 1",
        "UPDATE blocks SET topic_ids = topic_ids + 4 WHERE block = 1",
        "DELETE FROM topic_blocks WHERE block = 2",
    ],
)
async def test_a_damaged_index_loses_nothing(sqlite: SqliteStore, statement: str) -> None:
    messages = written()
    await damage(sqlite, messages, statement)
    for filters in (None, ("t/2",), ("t/2", "t/3"), tuple(f"t/{i}" for i in range(20))):
        wanted = [m.offset for m in messages if filters is None or m.topic in filters]
        assert await read(sqlite, filters) == (wanted, [])


MISFITS = [
    *(("messages", "topic_id", "x'ff'"), ("messages", "published_at_us", "NULL")),
    *(
        ("messages", "properties", "NULL"),
        ("log", "start", "'x'"),
        ("log", "accounted_from", "'x'"),
    ),
    *(("topic_blocks", "block", "'x'"), ("topic_blocks", "topic_id", "'x'")),
    *(("topic_blocks", "messages", "'x'"), ("topic_blocks", "bytes", "'x'")),
    *(("subscriptions", "filter", "7"), ("subscriptions", "filter", "x'ff'")),
    *(("subscriptions", "start_offset", "'x'"), ("cursors", "offset", "'x'")),
    *(("cursors", "inflight", "7"), ("cursors", "inflight", "NULL"), ("blocks", "messages", "'x'")),
    *(
        ("removed", "newest", "'x'"),
        ("removed", "offsets", "7"),
        ("removed_unread", "block", "'x'"),
    ),
    *(("removed_unread", "topic_id", "'x'"), ("removed_unread", "offsets", "7")),
    *(("removed_unread", "offsets", "'x'"), ("removed_unread", "crc", "'x'")),
    ("publisher_blocks", "block", "'x'"),
]


@pytest.mark.parametrize(("table", "column", "value"), MISFITS)
async def test_a_value_of_another_kind_is_damage(
    sqlite: SqliteStore, table: str, column: str, value: str
) -> None:
    """One flipped bit makes a text of a number, or nothing of it. Whoever comes upon that is told
    that the log is damaged, and nothing else breaks."""
    await sqlite.append(written(BLOCK + 100))
    await sqlite._thread.run(Trimming(sqlite._writer).take_out, [*range(1, 41)], {5, 6, 7})
    await sqlite.transact(
        [
            Put(SessionDocument("s", 1, 1, None)),
            Put(CursorDocument("s", Offset(7), Offset(7), 1, b"")),
            Put(subscription("t/1", client_id="s")),
        ]
    )
    await sqlite.close()
    misfit(sqlite.path, table, column, value)
    assert problems(sqlite.path, at_rest=True) != []
    with suppress(StoreError):
        await sqlite.open()
        removing = sqlite.removing
        removing.has_unread = True
        for look in (
            *(sqlite.read(Offset(1), END, filters) for filters in (None, ("t/1",), ("#",))),
            sqlite.measure([Stretch(("t/1",), Offset(9)), Stretch(("#",), Offset(1))], END),
            *(sqlite.count(["t/1"], Offset(1), END), sqlite.nth_last(["t/1"], 200)),
            *(sqlite.scan(SubscriptionDocument), sqlite.scan(CursorDocument)),
            *(removing.segments(Offset(0)), removing.counted(Offset(0), Offset(BLOCK))),
            *(removing.owed(("", "")), removing.forget_names()),
            removing.remove(Order(Offset(0), Offset(BLOCK - 1), {2: Cut(END, END)}), 10),
        ):
            with suppress(StoreError):
                await look


async def test_damage_of_the_open_block_is_not_written_into_its_figures(
    sqlite: SqliteStore,
) -> None:
    messages = written(100)
    await damage(sqlite, messages, OTHER_TOPIC.format(50))
    later = written(BLOCK)
    await sqlite.append(later)
    found, damaged = await read(sqlite, ("t/0",))
    assert found == [m.offset for m in messages + later if m.topic == "t/0" and m.offset != 50]
    assert damaged == [range(50, 51)]


async def test_what_retention_removed_is_not_damaged(sqlite: SqliteStore) -> None:
    messages = written()
    await sqlite.append(messages)
    for start in (5, BLOCK - 3, BLOCK + 7):
        await sqlite.trim(Offset(start))
        for filters in (None, ("t/2",)):
            wanted = [
                m.offset
                for m in messages
                if m.offset >= start and (filters is None or m.topic in filters)
            ]
            assert await read(sqlite, filters) == (wanted, [])


async def test_a_read_that_is_limited_names_only_what_it_came_to(sqlite: SqliteStore) -> None:
    messages = written(50)
    await damage(sqlite, messages, LOST.format(20), LOST.format(40))
    first = await sqlite.read(Offset(1), END, limit=25)
    assert first == Read([m for m in messages[:26] if m.offset != 20], Offset(27), [range(20, 21)])
    second = await sqlite.read(first.next, END, limit=25)
    assert second.damaged == [range(40, 41)]
    assert second.next == 51


async def test_no_flipped_bit_loses_a_message_silently(tmp_path: Path) -> None:
    """P8. `make soak` tries more, and `python -m tests.support.flips` as many as wanted. How many
    of them meet anything depends on how full the pages are: each table brings an empty one."""
    ends = await flips.flip(tmp_path, TRIALS, seed=7)
    assert ends.keys() <= {"harmless", "told", "refused"}
    assert ends["told"] >= TRIALS // 4


async def test_each_flipped_bit_of_a_payload_is_told(tmp_path: Path) -> None:
    """P8. Wherever the schema lays the payloads."""
    assert await flips.flip(tmp_path, TRIALS // 4, seed=7, in_payloads=True) == {
        "told": TRIALS // 4
    }


def claim_to_be_far_away(path: Path, offset: int) -> None:
    """The row stays where it is in its page, and says that its offset is 16,383."""
    file = bytearray(path.read_bytes())
    encoded = bytes((offset >> 7 | 0x80, offset & 0x7F))
    for page in range(0, len(file), 4096):
        if file[page] != 0x0D:  # No leaf of a table.
            continue
        for cell in range(int.from_bytes(file[page + 3 : page + 5], "big")):
            pointer = page + 8 + 2 * cell
            at = page + int.from_bytes(file[pointer : pointer + 2], "big")
            while file[at] & 0x80:  # The size of the row.
                at += 1
            if file[at + 1 : at + 3] == encoded:
                file[at + 1 : at + 3] = b"\xff\x7f"
                path.write_bytes(file)
                return
    raise AssertionError("no such row")


@pytest.mark.parametrize("offset", [700, 2 * BLOCK - 30])
async def test_a_row_that_ends_a_scan_early_hides_nothing_in_the_block_without_figures(
    sqlite: SqliteStore, offset: int
) -> None:
    """Found by `tests.support.flips 1500 77`: a rare topic is read from many blocks at once."""
    messages = [
        message(str(i), "rare" if i % 400 == 7 else f"t/{i % 5}") for i in range(1, 2 * BLOCK + 500)
    ]
    await sqlite.append(messages)
    await sqlite.close()
    claim_to_be_far_away(sqlite.path, offset)
    await sqlite.open()
    for filters in (("rare",), ("rare", "t/1"), ("rare", "+/+"), None):
        found, damaged = await read(sqlite, filters)
        assert flips.lost_silently(messages, filters, found, damaged) == []


@pytest.mark.parametrize("start", [1, 700, BLOCK, BLOCK + 300])
async def test_a_damaged_log_start_hides_nothing(
    sqlite: SqliteStore, caplog: pytest.LogCaptureFixture, start: int
) -> None:
    """A start that is too high is noticed, one that is too low only has less to show."""
    messages = [message(str(i), f"t/{i % 5}", retain=i % 300 == 7) for i in range(3 * BLOCK)]
    await sqlite.append(messages)
    await sqlite.trim(Offset(start))
    await sqlite.close()
    sound = sqlite.path.read_bytes()
    for bit in (0, 3, 9, 10, 11, 40):
        sqlite.path.write_bytes(sound)
        change(sqlite.path, f"UPDATE log SET start = {start ^ 1 << bit}")
        caplog.clear()
        await sqlite.open()
        found, _ = await read(sqlite, None)
        assert found[-(3 * BLOCK - start + 1) :] == [*range(start, 3 * BLOCK + 1)], bit
        assert sqlite.high_watermark == 3 * BLOCK, bit
        noticed = "the log start is damaged" in caplog.text
        assert noticed == (start ^ 1 << bit > start), bit
        await sqlite.close()
    await sqlite.open()


async def test_the_log_start_of_a_log_without_figures_may_not_be_above_its_end(
    sqlite: SqliteStore,
) -> None:
    await sqlite.append(written(100))
    await sqlite.close()
    change(sqlite.path, "UPDATE log SET start = start | (1 << 20)")
    await sqlite.open()
    found, _ = await read(sqlite, None)
    assert found == [*range(1, 101)]


async def test_a_lost_message_is_not_taken_for_a_damaged_log_start(sqlite: SqliteStore) -> None:
    """Though a retained message is there from below it."""
    await sqlite.append([message(str(i), f"t/{i}", retain=i == 3) for i in range(2 * BLOCK)])
    await sqlite.trim(Offset(500))
    await sqlite.close()
    change(sqlite.path, LOST.format(800))
    await sqlite.open()
    assert sqlite.log_start == 500
    found, damaged = await read(sqlite, None)
    assert found == [n for n in range(500, 2 * BLOCK + 1) if n != 800]
    assert damaged == [range(800, 801)]


async def test_what_more_of_a_block_turns_out_to_be_damaged_is_told_too(
    sqlite: SqliteStore, caplog: pytest.LogCaptureFixture
) -> None:
    """One message was looked for by its offset before the block was read."""
    await damage(sqlite, written(), *[OTHER_TOPIC.format(offset) for offset in (20, 30, 31)])
    assert (await sqlite.fetch([Offset(20)])).damaged == [range(20, 21)]
    for _ in range(2):
        await read(sqlite, None)
    told = [text.rpartition(" ")[2] for text in caplog.messages]
    assert told == ["20-20", "30-31"]
    assert sqlite.damaged_offsets == 3


@pytest.mark.parametrize("name", ["a/2", "b/1", "c/3"])
async def test_a_topic_name_that_became_a_blob_hides_no_topic(
    sqlite: SqliteStore, name: str
) -> None:
    """One bit of a row's header does that, in the table or in its index; a search by name ends
    there. Topics are known only by what messages have in whose block."""
    letters = "abc"
    messages = [message(str(i), f"{letters[i // 1500]}/{i % 5}") for i in range(4200)]
    await sqlite.append(messages)
    await sqlite.close()
    sound = sqlite.path.read_bytes()
    text, places = 13 + 2 * len(name), []
    at = sound.find(name.encode())
    while at >= 0:
        places += [at - back for back in (1, 2, 3, 4) if sound[at - back] == text][:1]
        at = sound.find(name.encode(), at + 1)
    assert len(places) == 2
    for place in places:
        file = bytearray(sound)
        file[place] ^= 1
        sqlite.path.write_bytes(file)
        damaged_store = SqliteStore(sqlite.path)
        await damaged_store.open()
        for filters in (("+/+",), ("b/+", "c/4"), ("a/+",), tuple(f"c/{i}" for i in range(5))):
            found, damaged = await read(damaged_store, filters)
            assert flips.lost_silently(messages, filters, found, damaged) == []
        await damaged_store.close()
    sqlite.path.write_bytes(sound)
    await sqlite.open()
