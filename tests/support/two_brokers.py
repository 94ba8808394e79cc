"""Two brokers without clients and sockets, on one log."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from broker.config import Config
from broker.documents import WillDocument
from broker.documents.queues import LoanDocument, MemberDocument, ReportDocument
from broker.registry.brokers import HEARTBEAT_S
from broker.store.shared.cluster import ClusterStore
from broker.store.shared.memory_log import MemoryLog
from broker.store.shared.trimming import KEEP_BYTES
from tests.support.clock import FakeClock
from tests.support.shared import a_moment, ids
from tests.support.world import Disk, Subscriber, World, running, subscription


def id_of(world: World) -> str:
    """Of its broker."""
    return store_of(world).broker_id


def store_of(world: World) -> ClusterStore:
    assert isinstance(world.log.store, ClusterStore)
    return world.log.store


@asynccontextmanager
async def one_more(
    log: MemoryLog,
    name: str,
    clock: FakeClock,
    config: Config | None = None,
    *,
    backup: Disk | None = None,
    keep_bytes: int = KEEP_BYTES,
) -> AsyncIterator[World]:
    """A broker from start to crash. It may begin with a backup of another's disk."""
    disk = backup or Disk()
    store = ClusterStore(log, disk, new_id=ids(name), sleep=a_moment, keep_bytes=keep_bytes)
    try:
        async with running(disk, config, clock, store) as world:
            yield world
    finally:
        await store.close()


@asynccontextmanager
async def two_brokers(
    config: Config | None = None, *, log: MemoryLog | None = None
) -> AsyncIterator[tuple[World, World]]:
    log, clock = log or MemoryLog(), FakeClock()
    async with one_more(log, "a", clock, config) as a, one_more(log, "b", clock, config) as b:
        yield a, b


async def pass_away(*living: World) -> None:
    """Whoever else there was is taken for dead, and what it has left is taken up."""
    for _ in range(6):
        for world in living:
            assert world.brokers is not None
            await world.passing_time(world.brokers.look())
        living[0].clock.advance(HEARTBEAT_S)
    await both_settled(*living)


async def both_settled(*worlds: World) -> None:
    """All have all of the log, and have done what there was to do."""
    for _ in range(2):
        for world in worlds:
            await world.flushed()
        for world in worlds:
            await world.passing_time(store_of(world).sync())
            await world.settled()


def will_of(client_id: str = "sub1", *, delay_s: int = 0) -> WillDocument:
    return WillDocument(client_id, "will", client_id.encode(), 1, False, b"", None, delay_s)


async def opened(world: World, client_id: str = "sub1", **terms: object) -> Subscriber:
    subscriber = Subscriber(world)
    await subscriber.open(client_id, **terms)  # type: ignore[arg-type]
    return subscriber


async def subscribed(world: World, client_id: str = "sub1", **terms: object) -> Subscriber:
    subscriber = await opened(world, client_id, **terms)
    subscriber.subscribe(subscription(client_id=client_id))
    await world.settled()
    return subscriber


def logged(world: World) -> list[bytes]:
    return [m.payload for m in world.disk.content.log]


async def left_over(world: World) -> list[object]:
    """What the log has of workers at other brokers than their group."""
    kinds = (MemberDocument, LoanDocument, ReportDocument)
    return [document for kind in kinds for document in await world.disk.scan(kind)]


async def acknowledged(subscriber: Subscriber, *worlds: World) -> None:
    """All that it has."""
    await subscriber.acknowledge()
    await both_settled(*worlds)
