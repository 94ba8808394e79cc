"""Stores to test, and a broker without clients and sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from broker.store import Store
from broker.store.memory import MemoryStore
from broker.store.sqlite.store import SqliteStore
from tests.support.quick_disk import AtOnce, quick_disk
from tests.support.world import Disk, World, running


@pytest.fixture(name="quick_disk")
def _quick_disk() -> Iterator[None]:
    """SqliteStore commits in the loop whatever is small enough."""
    with quick_disk():
        yield


@pytest.fixture(params=["memory", "sqlite", "sqlite, quick disk"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    path = tmp_path / "pubsub.db"
    if request.param == "memory":
        store: Store = MemoryStore()
    elif request.param == "sqlite":
        store = SqliteStore(path)
    else:
        request.getfixturevalue("quick_disk")
        store = AtOnce(path)
    await store.open()
    yield store
    await store.close()


@pytest.fixture
async def sqlite(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(tmp_path / "pubsub.db")
    await store.open()
    yield store
    await store.close()


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with running(Disk()) as world:
        yield world
