"""Runs: neighbouring blocks that one statement reads, and what they hold of the wanted topics."""

from __future__ import annotations

import pytest

from broker.store.sqlite.accounts import Accounts, Unsound
from broker.store.sqlite.index import SEEK_TOPICS_MAX, Run, TopicIndex
from broker.store.sqlite.rows import BLOCK_SHIFT
from broker.store.sqlite.store import SqliteStore
from tests.support.messages import message
from tests.support.sqlite import in_writer

BLOCK = 1 << BLOCK_SHIFT


async def runs(store: SqliteStore, wanted: set[int], suspects: set[int] | None = None) -> list[Run]:
    end = store.high_watermark
    return await in_writer(
        store,
        lambda connection: [
            *TopicIndex(connection, Accounts(connection)).runs(1, end, wanted, suspects or set())
        ],
    )


@pytest.fixture
async def store(sqlite: SqliteStore) -> SqliteStore:
    """Block 0: topic 1; block 1: topics 1 and 2; block 2: topic 3; block 3, open: topic 1."""
    topics = ["a"] * (BLOCK - 1) + ["a", "b"] * (BLOCK // 2) + ["c"] * BLOCK + ["a"] * 5
    await sqlite.append([message(topic=topic) for topic in topics])
    return sqlite


@pytest.mark.parametrize("others", [set(), {*range(100, 101 + SEEK_TOPICS_MAX)}])
async def test_neighbours_are_one_run_and_know_how_much_they_hold(
    store: SqliteStore, others: set[int]
) -> None:
    found = await runs(store, {1} | others)
    assert [run.last for run in found if run.topic_ids is None or run.topic_ids][
        -1
    ] == 4 * BLOCK - 1
    known: dict[int, int] = {}
    for run in found:
        known |= run.messages
    assert known == {0: BLOCK - 1, 1: BLOCK // 2}


async def test_blocks_with_nothing_else_are_read_without_their_topics(store: SqliteStore) -> None:
    found = await runs(store, {*range(1, 3 + SEEK_TOPICS_MAX)} - {2})
    assert [(run.last >> BLOCK_SHIFT, run.topic_ids) for run in found] == [
        (0, None),
        (1, {1}),
        (3, None),
    ]


async def test_a_block_with_a_suspect_topic_is_not_for_a_filter(store: SqliteStore) -> None:
    with pytest.raises(Unsound) as caught:
        await runs(store, {1}, {2})
    assert caught.value.block == 1
