"""Several stores on one shared log, and what there is to compare between their copies."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

from broker.documents import (
    CopyDocument,
    OwnerDocument,
    Put,
    SessionDocument,
    WriterDocument,
)
from broker.store.memory import MemoryStore
from broker.store.shared.cluster import ClusterStore
from broker.store.shared.memory_log import MemoryLog, Trouble

LOCAL_TABLES = ("broker_runs", "schema_migrations", "copies")
"""What a copy has of its own. How often it was written is its own, too, of `writers`."""


async def a_moment(seconds: float) -> None:
    """Takes no time."""
    await asyncio.sleep(0)


def brokers(log: MemoryLog, number: int) -> list[ClusterStore]:
    """Stores that are not open, of brokers `b1.0`, `b2.0` ..., their copies in memory."""
    return [
        ClusterStore(log, MemoryStore(), new_id=ids(f"b{n}"), sleep=a_moment)
        for n in range(1, number + 1)
    ]


def ids(name: str) -> Callable[[], str]:
    """One for each time that a store is opened."""
    numbers = count()
    return lambda: f"{name}.{next(numbers)}"


@asynccontextmanager
async def opened(*stores: ClusterStore) -> AsyncIterator[None]:
    for store in stores:
        await store.open()
    try:
        yield
    finally:
        for store in stores:
            await store.close()


async def settled(log: MemoryLog, stores: Sequence[ClusterStore]) -> None:
    """All that are alive have all of the log."""
    for store in stores:
        if store.failure is None:
            await store._follower.until_applied(len(log.records))


def troubles(*planned: Trouble) -> Callable[[], Trouble]:
    """These one after the other, then none."""
    left = iter(planned)
    return lambda: next(left, Trouble.NONE)


async def make_session(store: ClusterStore, client_id: str) -> None:
    """A session that this broker has."""
    owner = OwnerDocument(client_id, store.broker_id, 1)
    await store.transact([Put(SessionDocument(client_id, 60, 1, None), 0), Put(owner, 0)])


async def take(store: ClusterStore, client_id: str) -> None:
    """Take a session from whoever has it. Raises StoreConflict."""
    key = (client_id,)
    revision = await store.revision(OwnerDocument, key)
    owner = await store.get(OwnerDocument, key)
    epoch = 1 if owner is None else owner.epoch + 1
    await store.transact([Put(OwnerDocument(client_id, store.broker_id, epoch), revision)])


def content(copy: MemoryStore) -> list[Any]:
    """All that copies in memory have alike."""
    documents = {
        key: (document, 0 if isinstance(document, WriterDocument) else revision)
        for key, (document, revision) in copy.content.documents.items()
        if not isinstance(document, CopyDocument)
    }
    return [copy.content.log, copy.content.retained, documents, copy.high_watermark]


def rows(path: Path) -> dict[str, list[Any]]:
    """All that copies in SQLite have alike, row by row."""
    with sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True) as database:
        named = database.execute(
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        )
        names = [name for (name,) in named if name not in LOCAL_TABLES]
        found = {
            name: sorted(database.execute(f"SELECT * FROM {name}").fetchall(), key=repr)
            for name in names
        }
    database.close()
    found["writers"] = [row[:-1] for row in found["writers"]]
    return found
