"""The figures of full blocks: what the writer writes, and what `trim` takes out of them."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from itertools import groupby

import pytest

from broker.documents import CursorDocument, Put, SessionDocument
from broker.message import Message, Offset
from broker.store.sqlite.offsets import RESERVED_AT_ONCE
from broker.store.sqlite.rows import BLOCK_SHIFT
from broker.store.sqlite.store import SqliteStore
from tests.support.messages import message
from tests.support.sqlite import ask, the_way_back
from tests.support.stores import read_all

BLOCK = 1 << BLOCK_SHIFT
OF_TOPICS = (
    "SELECT block, name, messages, bytes, newest_at_us FROM topic_blocks"
    " JOIN topics ON id = topic_id WHERE messages IS NOT NULL ORDER BY block, name"
)
OF_BLOCKS = "SELECT block, messages, bytes, newest_at_us FROM blocks ORDER BY block"
SUMS_DIFFER = """
SELECT block FROM blocks b WHERE (topic_ids, messages, bytes, checksums) IS NOT (
    SELECT sum(topic_id), sum(messages), sum(bytes), sum(checksums)
    FROM topic_blocks t WHERE t.block = b.block AND messages IS NOT NULL
) OR checksums <> (
    SELECT sum(crc) FROM messages
    WHERE offset >> 10 = block AND offset >= (SELECT start FROM log)
)
"""


def figures(messages: list[Message], *, by_topic: bool) -> list[tuple[object, ...]]:
    """What is expected of these, which lie in full blocks."""

    def key(message: Message) -> tuple[object, ...]:
        block = message.offset >> BLOCK_SHIFT
        return (block, message.topic) if by_topic else (block,)

    found = []
    for group, members in groupby(sorted(messages, key=key), key):
        part = [*members]
        newest = max(m.published_at_us for m in part)
        found.append((*group, len(part), sum(m.size for m in part), newest))
    return found


def some(count: int) -> list[Message]:
    return [
        message(bytes(i % 9), f"t/{i % 3}", properties=bytes(i % 2), at=5000 - i % 7, retain=i == 5)
        for i in range(count)
    ]


async def test_full_blocks_have_figures_and_the_open_one_has_none(sqlite: SqliteStore) -> None:
    written = some(2 * BLOCK + 100)
    for at in range(0, len(written), 700):
        await sqlite.append(written[at : at + 700])
    full = [m for m in written if m.offset < 2 * BLOCK]
    assert ask(sqlite.path, OF_TOPICS) == figures(full, by_topic=True)
    assert ask(sqlite.path, OF_BLOCKS) == figures(full, by_topic=False)
    assert ask(sqlite.path, SUMS_DIFFER) == []


async def test_an_open_block_goes_on_after_a_restart(sqlite: SqliteStore) -> None:
    written = some(BLOCK + 10)
    await sqlite.append(written[:100])
    await sqlite.close()
    await sqlite.open()
    await sqlite.append(written[100:])
    full = [m for m in written if m.offset < BLOCK]
    assert ask(sqlite.path, OF_TOPICS) == figures(full, by_topic=True)
    assert ask(sqlite.path, SUMS_DIFFER) == []


@pytest.mark.parametrize("before", [0, 100, BLOCK - 1, BLOCK, BLOCK + 5])
async def test_no_commit_waits_for_the_rows_of_the_block_that_it_fills(
    sqlite: SqliteStore, monkeypatch: pytest.MonkeyPatch, before: int
) -> None:
    """1,023 large messages from before the start are 0.1 s and more."""

    def mistake(_: sqlite3.Connection, block: int) -> None:
        raise AssertionError(f"block {block} is read")

    written = some(2 * BLOCK + 10)
    await sqlite.append(written[:before])
    await sqlite.close()
    monkeypatch.setattr("broker.store.sqlite.figures.write_from_rows", mistake)
    await sqlite.open()
    await sqlite.append(written[before : before + 3])
    await sqlite.append(written[before + 3 :])
    full = [m for m in written if m.offset < 2 * BLOCK]
    assert ask(sqlite.path, OF_TOPICS) == figures(full, by_topic=True)
    assert ask(sqlite.path, SUMS_DIFFER) == []


async def test_a_block_of_one_topic_has_its_figures_too(sqlite: SqliteStore) -> None:
    written = [message(bytes(i % 5), "t", at=9000 - i) for i in range(2 * BLOCK + 10)]
    for at in range(0, len(written), 300):
        await sqlite.append(written[at : at + 300])
    full = [m for m in written if m.offset < 2 * BLOCK]
    assert ask(sqlite.path, OF_TOPICS) == figures(full, by_topic=True)
    assert ask(sqlite.path, SUMS_DIFFER) == []


async def test_what_is_taken_from_an_open_block_is_not_in_its_figures(sqlite: SqliteStore) -> None:
    written = some(2 * BLOCK + 10)
    await sqlite.append(written[: BLOCK + 200])
    await sqlite.trim(Offset(BLOCK + 50))
    await sqlite.append(written[BLOCK + 200 :])
    kept = [m for m in written if BLOCK + 50 <= m.offset < 2 * BLOCK]
    assert ask(sqlite.path, OF_TOPICS) == figures(kept, by_topic=True)
    assert ask(sqlite.path, SUMS_DIFFER) == []


async def test_what_another_program_inserts_is_in_the_figures(sqlite: SqliteStore) -> None:
    written = some(BLOCK + 10)
    await sqlite.append(written)
    with closing(sqlite3.connect(sqlite.path, isolation_level=None)) as other:
        other.execute(
            "INSERT INTO messages SELECT ?, topic_id, 1, 1, 0, 0, 0, x'', x'', 7"
            " FROM messages WHERE offset = 1",
            (RESERVED_AT_ONCE + 5,),
        )
    await sqlite.append(some(4 * BLOCK))
    assert ask(sqlite.path, SUMS_DIFFER) == []
    assert ask(sqlite.path, "SELECT block, messages FROM blocks WHERE block > 0") == [
        (1, 11),
        (4, BLOCK - 5),
        *[(block, BLOCK) for block in (5, 6, 7)],
    ]


@pytest.mark.parametrize("start", [2, 6, 7, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 1])
async def test_trim_takes_out_of_the_figures_what_is_below_the_log_start(
    sqlite: SqliteStore, start: int
) -> None:
    written = some(2 * BLOCK + 10)
    await sqlite.append(written)
    for before in (start // 2, start):
        await sqlite.trim(Offset(before))
    kept = [m for m in written if start <= m.offset < 2 * BLOCK]
    totals = [row[:3] for row in figures(kept, by_topic=False)]
    assert [row[:3] for row in ask(sqlite.path, OF_BLOCKS) if row[1]] == totals
    assert ask(sqlite.path, SUMS_DIFFER) == []


async def test_messages_that_another_program_inserts_move_the_offsets(sqlite: SqliteStore) -> None:
    await sqlite.append(some(3))
    with closing(sqlite3.connect(sqlite.path, isolation_level=None)) as other:
        other.execute(
            "INSERT INTO messages SELECT 9, topic_id, 1, 1, 0, 0, 0, x'', x'', 0"
            " FROM messages WHERE offset = 1"
        )
    after = [message("after") for _ in range(7)]
    for one in after:
        await sqlite.append([one])
    offsets = [one.offset for one in after]
    assert offsets == [4, 5, 6, 7, 8, RESERVED_AT_ONCE, RESERVED_AT_ONCE + 1]
    assert (await sqlite.fetch(offsets)).messages == after


async def test_the_way_to_an_older_program_and_back_rewrites_no_message_at_a_start(
    sqlite: SqliteStore,
) -> None:
    written = some(BLOCK + 10)
    listed = [b"\x81crc_" + b"e" * 12, b"\x82crc_summed", b""]
    await sqlite.append(written)
    for number, inflight in enumerate(listed):
        cursor = CursorDocument(f"sub{number}", Offset(1), Offset(9), 1, inflight)
        await sqlite.transact([Put(SessionDocument(f"sub{number}", 60, 1, None)), Put(cursor)])
    await sqlite.close()
    with closing(sqlite3.connect(sqlite.path, isolation_level=None)) as connection:
        for statement in the_way_back(3):
            connection.execute(statement)
    cursors = ask(sqlite.path, "SELECT sent_through, inflight FROM cursors ORDER BY client_id")
    assert cursors == [(9, b"e" * 12), (1, b""), (9, b"")]
    checksums = ask(sqlite.path, "SELECT offset, crc FROM messages")
    assert all(0 <= int(str(crc)) < 1 << 32 for _, crc in checksums)
    assert ask(sqlite.path, "PRAGMA user_version") == [(3,)]

    await sqlite.open()
    assert ask(sqlite.path, "SELECT offset, crc FROM messages") == checksums
    assert [path.name for path in sqlite.path.parent.iterdir() if "backup" in path.name] == []
    later = some(BLOCK)
    await sqlite.append(later)
    assert await read_all(sqlite) == written + later
    assert await read_all(sqlite, ["t/1"]) == [m for m in written + later if m.topic == "t/1"]
