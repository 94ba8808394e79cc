"""What is written straight into the tables is what the broker would have written."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from benchmarks import prepare
from broker.config import DATABASE
from broker.documents import CursorDocument, SessionDocument, SubscriptionDocument
from broker.message import Message, Offset
from broker.store.sqlite.store import SqliteStore
from tests.support.sqlite import problems


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    path = tmp_path / DATABASE
    async with opened(path):
        pass
    return path


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(path)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def test_messages_are_sound_and_indexed_and_the_log_goes_on_after_them(path: Path) -> None:
    prepare.add_messages(path, 70_000, b"x" * 16)
    prepare.add_messages(path, 3000, b"y" * 16)
    async with opened(path) as store:
        assert store.high_watermark == 73_000
        assert problems(store.path) == []
        end = store.high_watermark
        rare = (await store.read(Offset(1), end, [prepare.RARE_TOPIC])).messages
        assert [message.offset for message in rare] == [1, 50_001, 70_001]
        (last,) = (await store.read(Offset(73_000), end)).messages
        assert (last.topic, last.payload) == (prepare.TOPICS[73_000 % 20], b"y" * 16)
        first_turn = (await store.read(Offset(2), end, [prepare.TOPICS[2]], limit=2)).messages
        assert [message.offset for message in first_turn] == [2, 22]
        message = Message("t", b"", 1, False, "p", 1)
        await store.append([message])
        assert message.offset == 73_001


async def test_topics_are_known_once(path: Path) -> None:
    prepare.add_topics(path, ["a", "b", "a"])
    async with opened(path) as store:
        await store.append([Message("b", b"", 1, False, "p", 1)])
        assert problems(store.path) == []


async def test_sessions_can_be_taken_up(path: Path) -> None:
    prepare.add_messages(path, 100, b"x")
    prepare.add_sessions(path, [f"c{n}" for n in range(3)])
    async with opened(path) as store:
        assert problems(store.path) == []
        assert len(await store.scan(SessionDocument)) == 3
        (subscription,) = await store.scan(SubscriptionDocument, ("c1",))
        assert (subscription.filter, subscription.start_offset) == ("away/c1", 100)
        cursor = await store.get(CursorDocument, ("c2",))
        assert cursor == CursorDocument("c2", Offset(100), Offset(100), 1, b"")


def test_a_data_directory_is_made_once(tmp_path: Path) -> None:
    path = prepare.database(tmp_path)
    prepare.add_messages(path, 10, b"x")
    assert prepare.database(tmp_path) == path
    assert prepare.newest_offset(path) == 10
