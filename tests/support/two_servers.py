"""Whole brokers in this process, on one log in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from broker.config import DATABASE, Config
from broker.server.open_store import Opened
from broker.server.server import Server
from broker.store.shared.cluster import ClusterStore
from broker.store.shared.memory_log import MemoryLog
from broker.store.sqlite.store import SqliteStore


@asynccontextmanager
async def sharing(log: MemoryLog, *configs: Config) -> AsyncIterator[list[Server]]:
    """The test stops them, or leaves that to us."""

    async def opened(config: Config, *args: object, **kwargs: object) -> Opened:
        copy = SqliteStore(config.data_dir / DATABASE, is_copy=True)
        shared = ClusterStore(log, copy)
        await shared.open()
        return Opened(shared, copy, shared)

    servers = [Stoppable(config) for config in configs]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("broker.server.server.open_store", opened)
        for server in servers:
            await server.start()
    try:
        yield [*servers]
    finally:
        for server in servers:
            if not server.stopped:
                await server.stop()


class Stoppable(Server):
    stopped = False

    async def stop(self) -> None:
        self.stopped = True
        await super().stop()
