"""Two brokers on a log of three nodes, while something happens to these."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

import pytest
from nats.aio.client import Client

from broker.documents import CursorDocument, Put
from broker.errors import LogReplaced, SchemaMismatch, StoreUnavailable
from broker.message import Offset
from broker.store.shared.cluster import ClusterStore
from broker.store.shared.jetstream import JetStreamLog, make_stream
from broker.store.sqlite.store import SqliteStore
from tests.support.messages import message, numbered
from tests.support.nodes import Nodes, new_log
from tests.support.patience import PATIENCE_S
from tests.support.shared import make_session, rows
from tests.support.stores import payloads, read_all

LOAD_S = 12


@dataclass
class Appending:
    """What one broker appended, a batch after the other."""

    name: str
    store: ClusterStore
    acknowledged: list[bytes] = field(default_factory=list)
    longest_s: float = 0.0

    async def run(self, seconds: float) -> None:
        begin = monotonic()
        await make_session(self.store, self.name)
        while (began := monotonic()) < begin + seconds:
            number = len(self.acknowledged)
            sent = [message(f"{self.name}{number + i}", self.name) for i in range(3)]
            cursor = CursorDocument(self.name, Offset(number), Offset(number), 1, b"")
            await self.store.append(sent, [Put(cursor)])
            self.longest_s = max(self.longest_s, monotonic() - began)
            self.acknowledged += payloads(sent)


@asynccontextmanager
async def two_brokers(log: JetStreamLog, directory: Path) -> AsyncIterator[list[ClusterStore]]:
    logs = [log, JetStreamLog(log.servers, log.name)]
    stores = [
        ClusterStore(each, SqliteStore(directory / f"{i}.db", is_copy=True))
        for i, each in enumerate(logs)
    ]
    for store in stores:
        await store.open()
    try:
        yield stores
    finally:
        for store in stores:
            await store.close()


async def leader(client: Client, log: JetStreamLog) -> int:
    info = await client.jsm().stream_info(f"PUBSUB_{log.name}")
    assert info.cluster is not None
    assert info.cluster.leader is not None
    return int(info.cluster.leader[1:])


def kill_the_leader(nodes: Nodes, i: int) -> None:
    nodes.kill(i)


def pause_the_leader(nodes: Nodes, i: int) -> None:
    nodes.pause(i)
    asyncio.get_running_loop().call_later(6, nodes.go_on, i)


def kill_a_follower(nodes: Nodes, i: int) -> None:
    nodes.kill((i + 1) % 3)


def kill_two_for_a_while(nodes: Nodes, i: int) -> None:
    for each in (i, (i + 1) % 3):
        nodes.kill(each)
        asyncio.get_running_loop().call_later(4, nodes.start_one, each)


@pytest.mark.parametrize(
    "happens", [kill_the_leader, pause_the_leader, kill_a_follower, kill_two_for_a_while]
)
async def test_nothing_is_lost_twice_or_out_of_order(
    nodes: Nodes, tmp_path: Path, happens: Callable[[Nodes, int], None]
) -> None:
    log = await new_log(nodes)
    async with two_brokers(log, tmp_path) as stores:
        appendings = [Appending(name, store) for name, store in zip("ab", stores, strict=True)]
        at = await leader(log.client, log)
        asyncio.get_running_loop().call_later(2, happens, nodes, at)
        await asyncio.gather(*[appending.run(LOAD_S) for appending in appendings])
        for store in stores:
            await store.sync()
        for appending in appendings:
            assert appending.acknowledged
            for store in stores:
                assert payloads(await read_all(store, [appending.name])) == appending.acknowledged
        waits = [round(appending.longest_s, 1) for appending in appendings]
        print(f"{happens.__name__}: longest wait {waits} s")
        async with asyncio.timeout(PATIENCE_S):
            for store in stores:
                await store._follower.until_applied(max(s._stored_at for s in stores))
    first, second = rows(tmp_path / "0.db"), rows(tmp_path / "1.db")
    assert first == second


async def test_all_nodes_may_be_killed_at_once(nodes: Nodes, tmp_path: Path) -> None:
    log = await new_log(nodes)
    async with two_brokers(log, tmp_path) as stores:
        await stores[0].append(numbered(50))
        for i in range(3):
            nodes.kill(i)
        for i in range(3):
            nodes.start_one(i)
        await stores[1].append(numbered(1, first=51))
        await stores[0].sync()
        assert len(await read_all(stores[0])) == 51


async def test_another_log_under_the_same_name_is_refused(nodes: Nodes, tmp_path: Path) -> None:
    log = await new_log(nodes)
    async with two_brokers(log, tmp_path) as stores:
        await stores[0].append(numbered(3))
        await log.client.jsm().delete_stream(f"PUBSUB_{log.name}")
        await make_stream(nodes.servers, log.name, replicas=3)
    with pytest.raises(LogReplaced, match="has a copy of the log"):
        async with two_brokers(log, tmp_path):
            pass


async def test_too_few_replicas_or_no_log_are_refused(nodes: Nodes) -> None:
    await new_log(nodes)
    await make_stream(nodes.servers, "few", replicas=1)
    with pytest.raises(SchemaMismatch, match="replicas"):
        await JetStreamLog(nodes.servers, "few").open()
    with pytest.raises(StoreUnavailable, match="pubsub cluster init"):
        await JetStreamLog(nodes.servers, "none").open()
    few = JetStreamLog(nodes.servers, "few", replicas_min=1)
    assert (await few.open()).newest == 0
    await few.close()
