"""Trimming: what the writer removes, and what is held by then."""

from __future__ import annotations

from broker.message import Offset
from broker.store.sqlite.retention.trimming import PASSED_AT_ONCE_MAX, Trimming
from broker.store.sqlite.store import SqliteStore
from tests.support.messages import message, numbered
from tests.support.sqlite import ask
from tests.support.stores import read_all


async def test_what_is_held_by_now_stays(sqlite: SqliteStore) -> None:
    await sqlite.append([message("1", retain=True), *numbered(5, first=2)])
    trimming = Trimming(sqlite._writer)
    rows, unread, _ = await sqlite._thread.run(trimming.take_out, [1, 2, 3], {3})
    assert ([row.offset for row in rows], unread) == ([2, 3], [3])
    assert [m.offset for m in await read_all(sqlite)] == [1, 4, 5, 6]
    assert ask(sqlite.path, "SELECT block, hex(offsets) FROM removed_unread") == [(0, "0003")]


async def test_the_log_start_passes_many_held_messages_in_several_steps(
    sqlite: SqliteStore,
) -> None:
    count = PASSED_AT_ONCE_MAX + 10
    await sqlite.append([message("r", f"r/{n}", retain=True) for n in range(count)])
    await sqlite.append(numbered(1))
    trimming = Trimming(sqlite._writer)
    assert await sqlite._thread.run(trimming.advance_some)
    assert sqlite._writer.log_start == PASSED_AT_ONCE_MAX + 1
    assert not await sqlite._thread.run(trimming.advance_some)
    assert sqlite._writer.log_start == count + 1
    assert ask(sqlite.path, "SELECT min(block) FROM topic_blocks") == [((count + 1) >> 10,)]


async def test_a_trim_in_steps(sqlite: SqliteStore) -> None:
    await sqlite.append(numbered(2000))
    trimming = Trimming(sqlite._writer)
    await sqlite._thread.run(trimming.move_log_start, 1500)
    assert await sqlite._thread.run(trimming.trim_some, 1500, 0) == (1023, 1024)
    assert await sqlite._thread.run(trimming.trim_some, 1500, 1024) == (476, 1500)
    assert await sqlite._thread.run(trimming.trim_some, 1500, 1500) == (0, 1500)
    assert (sqlite._writer.log_start, sqlite._writer.missing_before) == (1500, 1500)
    assert sqlite._writer.message_count == 501


async def test_names_that_came_again_meanwhile_stay(sqlite: SqliteStore) -> None:
    await sqlite.append([message("1", "a", publisher="p"), message("2", "b", publisher="q")])
    trimming = Trimming(sqlite._writer)
    gone = await sqlite._thread.run(trimming.forget_names, [1, 2], [1, 2], 0)
    assert gone == 0
    await sqlite._thread.run(trimming.take_out, [1], ())
    assert await sqlite._thread.run(trimming.forget_names, [1, 2], [1, 2], 1) == 2
    await sqlite.append([message("3", "a", publisher="p")])
    assert [(m.topic, m.publisher) for m in await read_all(sqlite)] == [("b", "q"), ("a", "p")]
    assert Offset(3) == sqlite.high_watermark
