"""How many messages match, counted by the figures of blocks."""

from __future__ import annotations

import pytest

from broker.message import Offset
from broker.store.sqlite.store import SqliteStore
from tests.support.messages import message, numbered
from tests.support.sqlite import change

pytestmark = pytest.mark.long

ALL = Offset(1), Offset(209_979)


async def fill(sqlite: SqliteStore) -> None:
    for _ in range(21):
        await sqlite.append(numbered(9_999, lambda i: f"t/{i % 3}"))


async def test_it_looks_no_more_often_than_it_may(sqlite: SqliteStore) -> None:
    """And says how far it came."""
    await fill(sqlite)
    count, position = await sqlite.count(["t/1"], *ALL, looks_max=1)
    assert abs(3 * count - position) < 4
    assert 100_000 < position < 200_000, position
    assert await sqlite.count(["t/1"], *ALL) == (69_993, 209_980)
    assert await sqlite.count(["t/+"], *ALL) == (209_979, 209_980)


async def test_blocks_that_an_older_program_wrote_are_counted_by_their_rows(
    sqlite: SqliteStore,
) -> None:
    await fill(sqlite)
    await sqlite.append([message(topic="t/1")])
    await sqlite.close()
    change(sqlite.path, "UPDATE topic_blocks SET messages = NULL WHERE block % 3 = 0")
    await sqlite.open()
    assert (await sqlite.count(["t/1"], *ALL))[0] == 69_993
    assert (await sqlite.count(["t/1"], Offset(1), sqlite.high_watermark))[0] == 69_994
