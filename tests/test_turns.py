"""No turn of the event loop is long, however many sessions, filters, members, subscribers or topics
it is for; nor is a look into the log, which others wait for.

Measured is the time of the processor, 1 to 30 ms. What grows with these numbers takes 200 ms and
more, each time; on a machine that others use anything may take long once, so a test that finds a
long turn looks again.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest

from broker.config import Config
from broker.documents import (
    CursorDocument,
    Document,
    Operation,
    Place,
    Put,
    SessionDocument,
    SubscriptionDocument,
)
from broker.errors import StoreCorrupt
from broker.message import Message, Offset, ServedUs
from broker.mqtt.encode import encode
from broker.mqtt.packets import MQTT_5, Subscribe, SubscriptionRequest, Unsubscribe
from broker.registry.groups.lingering import UNREAD
from broker.registry.loading import SESSION_STATE
from broker.server.serving import GC_THRESHOLDS
from broker.store.sqlite.store import SqliteStore
from broker.store.sqlite.thread import ConnectionThread
from broker.topics import TopicTree
from tests.support.clients import NOTHING_TO_TELL, Dialogue
from tests.support.clock import FakeClock
from tests.support.groups import member, numbers, publish
from tests.support.messages import message
from tests.support.sqlite import change
from tests.support.turns import LongestTurn, again_if_long, short
from tests.support.world import Disk, Subscriber, placed, running, subscription

TURN_MS_MAX = 50


@pytest.fixture(autouse=True)
def _no_collector() -> Iterator[None]:
    """The cycle collector waits: it would look at everything that the tests before have left."""
    gc.disable()
    yield
    gc.enable()


async def stored(path: Path, *documents: Document) -> Disk:
    """A store on the disk, closed, with these documents and one message."""
    store = SqliteStore(path / "pubsub.db", durability="os")
    await store.open()
    await store.append([message(topic="t/1/x")], [Put(document) for document in documents])
    await store.close()
    return cast(Disk, store)  # A `World` asks no more of it than of any store.


async def until(condition: Callable[[], bool], clock: FakeClock | None = None) -> None:
    """Let turns pass, and timers that are due go off."""
    while not condition():
        await asyncio.sleep(0)
        if clock is not None:
            clock.advance(0)


def measure_threads(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How many milliseconds each call from now on takes in the thread of a connection."""
    took_ms: list[float] = []
    run = ConnectionThread.run

    async def measured(thread: ConnectionThread, function: Any, *args: Any, **kwargs: Any) -> Any:
        def timed() -> Any:
            began = time.thread_time()
            result = function(*args, **kwargs)
            took_ms.append((time.thread_time() - began) * 1000)
            return result

        return await run(thread, timed)

    monkeypatch.setattr(ConnectionThread, "run", measured)
    return took_ms


@again_if_long
async def test_many_sessions_that_expire_at_once(tmp_path: Path) -> None:
    clock = FakeClock()
    expires_at_us = ServedUs(clock.wall_us() + 10_000_000)
    names = [f"client{n}" for n in range(30_000)]
    disk = await stored(tmp_path, *[SessionDocument(n, 100, 1, expires_at_us) for n in names])
    async with running(disk, Config(), clock) as world, LongestTurn() as longest:
        clock.advance(11)
        await until(lambda: world.sessions.kept.client_count == 0, clock)
        await world.log.flushed()
    await disk.close()
    short(TURN_MS_MAX, longest.ms)


@again_if_long
async def test_a_client_with_many_filters_that_comes_back_and_leaves(tmp_path: Path) -> None:
    disk = await stored(
        tmp_path,
        SessionDocument("sub1", 100, 1, None),
        CursorDocument("sub1", Offset(0), Offset(0), 1, b""),
        *[subscription(f"t/{n}/+") for n in range(50_000)],
    )
    async with running(disk) as world:
        sub = Subscriber(world)
        async with LongestTurn() as coming:
            await sub.open()
            await until(lambda: world.is_live(sub))
        assert world.delivery.subscription_count == 50_000
        assert len(sub.got) == 1
        async with LongestTurn() as leaving:
            sub.close()
            await until(lambda: world.delivery.subscription_count == 0)
    await disk.close()
    short(TURN_MS_MAX, coming.ms, leaving.ms)


@again_if_long
async def test_a_subscribe_of_many_filters_of_many_levels(tmp_path: Path) -> None:
    filters = [f"t/{n}/{'+/' * 90}x" for n in range(10_000)]
    subscribe = Subscribe(1, [SubscriptionRequest(topic_filter, 1) for topic_filter in filters])
    disk = await stored(tmp_path)
    async with running(disk, NOTHING_TO_TELL) as world:
        client = Dialogue(world)
        await client.connect()
        for packet in (encode(subscribe, MQTT_5), encode(Unsubscribe(1, filters), MQTT_5)):
            async with LongestTurn() as longest:
                client.peer.receive(packet, world.clock.monotonic())
                await until(lambda: len(client.transport.written) > len(filters))
            client.transport.written = b""
            short(TURN_MS_MAX, longest.ms)
    await disk.close()


@again_if_long
async def test_a_client_with_many_filters_of_many_levels_that_comes_back_and_leaves(
    tmp_path: Path,
) -> None:
    filters = [f"t/{n}/{'+/' * 190}x" for n in range(3_000)]
    disk = await stored(
        tmp_path, SessionDocument("sub1", 100, 1, None), *map(subscription, filters)
    )
    async with running(disk) as world:
        sub = Subscriber(world)
        async with LongestTurn() as coming:
            await sub.open()
            await until(lambda: world.is_live(sub))
        async with LongestTurn() as leaving:
            sub.close()
            await until(lambda: world.delivery.subscription_count == 0)
    await disk.close()
    short(TURN_MS_MAX, coming.ms, leaving.ms)


@again_if_long
async def test_the_cycle_collector_beside_a_client_with_many_filters() -> None:
    """It looks at all that was made since it ran last."""
    longest_ms, began = 0.0, 0.0

    def collecting(phase: str, info: dict[str, int]) -> None:
        nonlocal longest_ms, began
        if phase == "start":
            began = time.thread_time()
        else:
            longest_ms = max(longest_ms, (time.thread_time() - began) * 1000)

    thresholds = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    gc.callbacks.append(collecting)
    gc.enable()
    try:
        tree: TopicTree[int, int] = TopicTree()
        for n in range(15_000):
            tree.add(f"t/{n}/{'+/' * 90}x", n, n)
    finally:
        gc.disable()
        gc.callbacks.remove(collecting)
        gc.set_threshold(*thresholds)
        gc.unfreeze()
    assert longest_ms, "it ran"
    short(TURN_MS_MAX, longest_ms)


@pytest.mark.parametrize("waiting", [0, 1000])
@again_if_long
async def test_acknowledgements_in_a_group_with_many_members(waiting: int) -> None:
    async with running(Disk()) as world:
        members = [await member(world, f"m{n}", window=1) for n in range(1000)]
        await publish(world, 1, 1000 + waiting)
        async with LongestTurn() as longest:
            for one in members[:100]:
                placed(one).in_flight.puback(one.packet_ids[:1])
                world.groups.settle(placed(one))
                one.wake()
            await asyncio.sleep(0)
        assert len(numbers(*members)) == 1000 + min(waiting, 100)
    short(TURN_MS_MAX, longest.ms)


@again_if_long
async def test_a_window_that_is_refused_at_once(tmp_path: Path) -> None:
    """Each refusal is a packet of its own."""
    disk = await stored(tmp_path)
    async with running(disk, NOTHING_TO_TELL) as world:
        worker = Dialogue(world)
        await worker.connect("worker")
        worker.client("82 ( 0001 00 000A '$share/g/t' 01 )")
        await until(lambda: bool(worker.transport.written), world.clock)
        await world.publish(*[message() for _ in range(2000)])
        await until(lambda: worker.transport.written.count(b"\x32") >= 2000, world.clock)
        refusals = b"".join(b"\x40\x04%b\x80\x00" % n.to_bytes(2) for n in range(1, 2001))
        async with LongestTurn() as longest:
            worker.peer.receive(refusals, world.clock.monotonic())
            groups = world.counters.groups
            await until(lambda: groups.dead_letters == 2000, world.clock)
    await disk.close()
    short(TURN_MS_MAX, longest.ms)


@again_if_long
async def test_a_look_at_the_leases_of_many_members() -> None:
    """All of them last too long: each is taken back, and nobody else is there."""
    async with running(Disk()) as world:
        members = [await member(world, f"m{n}", window=3) for n in range(3000)]
        await publish(world, 1, 3 * len(members))
        async with LongestTurn() as longest:
            world.clock.advance(400)
            groups = world.counters.groups
            await until(lambda: groups.attempts_failed == len(members), world.clock)
    short(TURN_MS_MAX, longest.ms)


@again_if_long
async def test_many_groups_that_end_at_once(tmp_path: Path) -> None:
    """Every other one has read everything."""
    clock = FakeClock()
    at = ServedUs(clock.wall_us() + 10_000_000)
    names = [f"$share/g{n}/t/1/x" for n in range(10_000)]
    cursors = [Offset(n % 2) for n in range(len(names))]
    disk = await stored(
        tmp_path,
        *[SessionDocument(name, 3600, 1, at) for name in names],
        *[
            CursorDocument(name, read, read, 1, b"")
            for name, read in zip(names, cursors, strict=True)
        ],
    )
    config = Config(session_expiry_default_s=3600)
    async with running(disk, config, clock) as world, LongestTurn() as longest:
        clock.advance(11)
        await until(lambda: world.sessions.kept.group_count == 0, clock)
        await world.log.flushed()
        await until(lambda: world.counters.dropped[UNREAD] == len(names) // 2, clock)
    await disk.close()
    short(TURN_MS_MAX, longest.ms)


@again_if_long
async def test_a_client_that_leaves_many_groups_at_once(tmp_path: Path) -> None:
    names = [f"$share/g{n}/t/{n}" for n in range(5_000)]
    disk = await stored(tmp_path, *[SessionDocument(name, 100, 1, None) for name in names])
    async with running(disk) as world:
        sub = Subscriber(world)
        await sub.open(expiry_s=0)
        for name in names:
            await world.groups.join(placed(sub), subscription(name), sub)
        await world.log.flushed()
        assert world.groups.open_count == len(names)
        async with LongestTurn() as longest:
            sub.close()
            await until(lambda: world.groups.open_count == 0)
            await world.log.flushed()
    await disk.close()
    short(TURN_MS_MAX, longest.ms)


@again_if_long
async def test_many_members_of_a_group_that_failed(tmp_path: Path) -> None:
    """They come again meanwhile, or at once."""
    disk = await stored(tmp_path)
    async with running(disk, NOTHING_TO_TELL) as world:
        clients = [Dialogue(world) for _ in range(1000)]
        for n, client in enumerate(clients):
            await client.connect(f"m{n}")
            client.client("82 ( 0001 00 000A '$share/g/t' 01 )")
        await until(lambda: all(client.transport.written for client in clients), world.clock)
        (group,) = world.groups._groups.values()
        again = Dialogue(world)
        await again.connect("again")
        async with LongestTurn() as longest:
            group.broken(StoreCorrupt("damaged"))
            again.client("82 ( 0001 00 000A '$share/g/t' 01 )")
            await until(lambda: all(client.transport.closed.is_set() for client in clients))
        await until(lambda: bool(again.transport.written), world.clock)
        await world.publish(message())
        assert world.groups.open_count == 1
        assert again.transport.written.count(b"\x32") == 1
    await disk.close()
    short(TURN_MS_MAX, longest.ms)


@again_if_long
async def test_the_documents_of_a_client_with_many_filters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Measured in the reader's thread: who else connects waits for it."""
    filters = [f"t/{n}/+" for n in range(50_000)]
    disk = await stored(
        tmp_path, SessionDocument("sub1", 100, 1, None), *map(subscription, filters)
    )
    longest_ms = measure_threads(monkeypatch)
    await disk.open()
    found = await disk.scan_together(SESSION_STATE, ("sub1",))
    assert len(found) == 50_001
    assert await disk.scan(SubscriptionDocument, ("sub1",)) == found[1:]
    await disk.close()
    short(TURN_MS_MAX, *longest_ms)


class Forgetful(Disk):
    """Keeps no documents: `MemoryStore` copies all of them in each commit."""

    async def append(
        self,
        batch: Sequence[Message],
        state: Sequence[Operation] = (),
        *,
        durable: bool = True,
        places: Sequence[Place] = (),
    ) -> None:
        await super().append(batch, durable=durable, places=places)


@again_if_long
async def test_a_message_for_many_subscribers_and_their_acknowledgements() -> None:
    async with running(Forgetful()) as world:
        subscribers = [Subscriber(world) for _ in range(20_000)]
        for n, sub in enumerate(subscribers):
            await sub.open(f"sub{n}")
            world.delivery.subscribe(placed(sub), subscription(client_id=f"sub{n}"))
        async with LongestTurn() as sending:
            await world.publish(message())
            await until(lambda: all(sub.got for sub in subscribers[-1000:]))
        assert sum(len(sub.got) for sub in subscribers) == 20_000
        for sub in subscribers:
            placed(sub).in_flight.puback(sub.packet_ids)
            wake = partial(world.delivery.wake, placed(sub))
            world.log.changed(placed(sub), lambda error, wake=wake: wake(), urgent=False)  # type: ignore[misc]
        async with LongestTurn() as acknowledged:
            await world.flushed()
    short(TURN_MS_MAX, sending.ms, acknowledged.ms)


@again_if_long
async def test_a_reader_of_many_topics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measured in the reader's thread: other readers wait for it."""
    disk = await stored(tmp_path)
    change(
        tmp_path / "pubsub.db",
        "WITH RECURSIVE n (n) AS (SELECT 2 UNION ALL SELECT n + 1 FROM n WHERE n < 250000)"
        " INSERT INTO topics (name) SELECT 't/' || n || '/x' FROM n",
    )
    await disk.open()
    await disk.append([message(topic=f"t/{n}/x") for n in range(1, 250_000, 50)])
    longest_ms = measure_threads(monkeypatch)
    for filters in (["t/+/x"], [f"t/{n}/#" for n in range(5000)]):
        await disk.nth_last(filters, 50)
        await disk.retained(filters)
        found, position = 0, Offset(1)
        while position <= disk.high_watermark:
            read = await disk.read(position, disk.high_watermark, filters)
            found, position = found + len(read.messages), read.next
        assert found == (101 if len(filters) > 1 else 5001)
    await disk.close()
    short(TURN_MS_MAX, *longest_ms)
