"""Every store that there is, for the contract."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from broker.store import Store
from broker.store.memory import MemoryStore
from broker.store.shared.cluster import ClusterStore
from broker.store.shared.memory_log import MemoryLog
from broker.store.sqlite.store import SqliteStore
from tests.support.nodes import Nodes, new_log, remove_log, running_nodes
from tests.support.quick_disk import AtOnce


@pytest.fixture(scope="session")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    with running_nodes(tmp_path_factory.mktemp("nodes")) as nodes:
        yield nodes


@pytest.fixture(
    params=[
        *("memory", "memory, gaps", "sqlite", "sqlite, quick disk"),
        *("shared, memory", "shared, sqlite"),
        *(["shared, jetstream"] if "PUBSUB_TEST_NODES" in os.environ else []),
    ]
)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    path = tmp_path / "pubsub.db"
    if request.param == "memory":
        store: Store = MemoryStore()
    elif request.param == "memory, gaps":
        store = MemoryStore(gaps=10)
    elif request.param == "shared, memory":
        store = ClusterStore(MemoryLog(), MemoryStore())
    elif request.param == "shared, sqlite":
        store = ClusterStore(MemoryLog(), SqliteStore(path, is_copy=True))
    elif request.param == "shared, jetstream":
        log = await new_log(request.getfixturevalue("nodes"))
        store = ClusterStore(log, SqliteStore(path, is_copy=True))
        await store.open()
        yield store
        await store.close()
        await remove_log(log)
        return
    elif request.param == "sqlite":
        store = SqliteStore(path)
    else:
        request.getfixturevalue("quick_disk")
        store = AtOnce(path)
    await store.open()
    yield store
    await store.close()
