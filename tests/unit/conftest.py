"""Stores to test, and a broker without clients and sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from broker.store import Store
from broker.store.memory import MemoryStore
from broker.store.sqlite import store as sqlite_module
from broker.store.sqlite.store import SqliteStore
from tests.support.world import Disk, World, running


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


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with running(Disk()) as world:
        yield world
