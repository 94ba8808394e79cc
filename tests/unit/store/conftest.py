"""Stores to test, and short ways to write messages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest

from broker.message import Message, Offset
from broker.store import Skipped, Store
from broker.store.memory import MemoryStore
from broker.store.sqlite import store as sqlite_module
from broker.store.sqlite.store import SqliteStore


@pytest.fixture
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """SqliteStore commits in the caller's thread whatever is small enough."""
    monkeypatch.setattr(sqlite_module, "QUICK_COMMITS_MIN", 0)


@pytest.fixture(params=["memory", "sqlite", "sqlite, quick disk"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    if "quick" in request.param:
        request.getfixturevalue("quick_disk")
    store: Store = (
        MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "pubsub.db")
    )
    await store.open()
    yield store
    await store.close()


@pytest.fixture
async def sqlite(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(tmp_path / "pubsub.db")
    await store.open()
    yield store
    await store.close()


def message(
    payload: bytes | str = b"",
    topic: str = "weather",
    *,
    qos: int = 1,
    retain: bool = False,
    publisher: str = "pub1",
    at: int = 1_700_000_000_000_000,
    expires_at_us: int | None = None,
    properties: bytes = b"",
) -> Message:
    payload = payload.encode() if isinstance(payload, str) else payload
    return Message(topic, payload, qos, retain, publisher, at, expires_at_us, properties)


def numbered(count: int, topic: Callable[[int], str] = lambda i: "weather") -> list[Message]:
    return [message(str(i), topic(i)) for i in range(count)]


def payloads(messages: Sequence[Message]) -> list[bytes]:
    return [message.payload for message in messages]


async def read_all(store: Store, filters: Sequence[str] | None = None) -> list[Message]:
    """Every message there is, as a reader that resumes would get them."""
    found: list[Message] = []
    position = Offset(1)
    while position <= store.high_watermark:
        read = await store.read(position, store.high_watermark, filters, limit=700)
        assert read.next > position or position < store.log_start
        found += read.messages
        position = read.next
    return found


async def retained(store: Store, filters: Sequence[str]) -> list[Message]:
    return await store.fetch(await store.retained(filters))


async def tail_until(store: Store, start: int, last: int) -> list[Message | Skipped]:
    """What `tail` yields from `start` on, flat, until it came to offset `last`."""
    found: list[Message | Skipped] = []
    async with asyncio.timeout(10):
        async for batch in store.tail(Offset(start)):
            if isinstance(batch, Skipped):
                found.append(batch)
                reached = batch.last
            else:
                found += batch
                reached = batch[-1].offset
            if reached >= last:
                return found
    return found
