"""Who waits for whom among the readers: no CONNECT for a look at messages, nobody for the gone."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator

import pytest

from broker.documents import Put, SessionDocument
from broker.store.sqlite.lanes import MESSAGE_READERS
from broker.store.sqlite.reader import Reader
from broker.store.sqlite.store import SqliteStore
from tests.support.messages import message
from tests.support.patience import PATIENCE_S


@pytest.fixture
def may_go_on() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
async def busy(sqlite: SqliteStore, may_go_on: threading.Event) -> AsyncIterator[SqliteStore]:
    """Every reader of messages looks at something that takes long."""
    await sqlite.append([message()], [Put(SessionDocument("sub1", 1, 1, None))])
    begun = threading.Semaphore(0)

    def look(reader: Reader) -> None:
        begun.release()
        assert may_go_on.wait(10)

    looks = [asyncio.create_task(sqlite._lanes.messages(look)) for _ in range(MESSAGE_READERS)]
    for _ in looks:
        await asyncio.to_thread(begun.acquire)
    yield sqlite
    may_go_on.set()
    await asyncio.gather(*looks)


async def test_a_session_is_found_while_messages_are_looked_for(busy: SqliteStore) -> None:
    async with asyncio.timeout(PATIENCE_S):
        assert await busy.get(SessionDocument, ("sub1",)) is not None
        assert await busy.revision(SessionDocument, ("sub1",)) == 1


async def test_nothing_is_looked_for_on_behalf_of_callers_who_have_gone(
    busy: SqliteStore, may_go_on: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[object] = []
    fetch = Reader.fetch

    def noted(reader: Reader, offsets: list[int], bytes_max: int) -> object:
        fetched.append(offsets)
        return fetch(reader, offsets, bytes_max)

    monkeypatch.setattr(Reader, "fetch", noted)
    gone = [asyncio.create_task(busy.fetch([])) for _ in range(10)]
    await asyncio.sleep(0)
    for task in gone:
        task.cancel()
    await asyncio.gather(*gone, return_exceptions=True)
    may_go_on.set()
    for _ in range(MESSAGE_READERS):
        await busy.retained(["#"])  # Behind the cancelled calls.
    assert fetched == []
