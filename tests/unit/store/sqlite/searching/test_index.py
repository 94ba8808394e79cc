"""Runs: neighbouring blocks that one statement reads, and what they hold of the wanted topics."""

from __future__ import annotations

import sqlite3

import pytest

from broker.store.sqlite.accounts import Accounts, Unsound
from broker.store.sqlite.rows import BLOCK_SHIFT
from broker.store.sqlite.searching.filters import WantedTopics
from broker.store.sqlite.searching.index import Run, TopicIndex
from broker.store.sqlite.store import SqliteStore
from tests.support.messages import message
from tests.support.sqlite import in_writer

BLOCK = 1 << BLOCK_SHIFT


async def runs(
    store: SqliteStore, filters: list[str], suspects: set[int] | None = None, *, few: bool = True
) -> list[Run]:
    end = store.high_watermark

    def found(connection: sqlite3.Connection) -> list[Run]:
        wanted = WantedTopics(connection, filters, 3)
        while not wanted.look(3):
            pass
        if not few:
            wanted.few = None
        index = TopicIndex(connection, Accounts(connection))
        return [*index.runs(1, end, wanted, suspects or set())]

    return await in_writer(store, found)


@pytest.fixture
async def store(sqlite: SqliteStore) -> SqliteStore:
    """Block 0: topic 1; block 1: topics 1 and 2; block 2: topic 3; block 3, open: topic 1."""
    topics = ["a"] * (BLOCK - 1) + ["a", "b"] * (BLOCK // 2) + ["c"] * BLOCK + ["a"] * 5
    await sqlite.append([message(topic=topic) for topic in topics])
    return sqlite


@pytest.mark.parametrize("few", [True, False])
async def test_neighbours_are_one_run_and_know_how_much_they_hold(
    store: SqliteStore, few: bool
) -> None:
    found = await runs(store, ["a"], few=few)
    assert [run.last for run in found if run.topic_ids is None or run.topic_ids][
        -1
    ] == 4 * BLOCK - 1
    known: dict[int, int] = {}
    for run in found:
        known |= run.messages
    assert known == {0: BLOCK - 1, 1: BLOCK // 2}


async def test_blocks_with_nothing_else_are_read_without_their_topics(store: SqliteStore) -> None:
    found = await runs(store, ["a", "c"], few=False)
    assert [(run.last >> BLOCK_SHIFT, run.topic_ids) for run in found] == [
        (0, None),
        (1, {1}),
        (2, None),
        (3, None),  # It has no figures yet.
    ]


async def test_a_block_with_a_suspect_topic_is_not_for_a_filter(store: SqliteStore) -> None:
    with pytest.raises(Unsound) as caught:
        await runs(store, ["a"], {2})
    assert caught.value.block == 1
