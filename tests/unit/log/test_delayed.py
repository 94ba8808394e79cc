"""Delayed messages: in the log when they are due, once, whatever crashed or was set meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from broker.clock import US
from broker.counters import Counters
from broker.documents import Author, DelayedDeadlineDocument, DelayedDocument, Delete
from broker.errors import QuotaExceeded, StoreFull, StoreUnavailable
from broker.log.delayed import LOOK_S, NO_RIGHT, RETRY_S, Delayed
from broker.log.log import Log
from broker.message import Message, Offset, WallUs
from tests.support.clock import FakeClock
from tests.support.messages import message
from tests.support.world import Disk, World, running

ANNA = Author("anna")


@pytest.fixture
async def disk() -> Disk:
    disk = Disk()
    await disk.open()
    return disk


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def world(disk: Disk, clock: FakeClock) -> AsyncIterator[World]:
    async with running(disk, clock=clock) as world:
        yield world


async def delay(
    world: World, sent: Message, seconds: int, *, expiry_s: int | None = None, by_wall: bool = False
) -> None:
    delayed = world.asking.delayed
    at_us = WallUs(world.clock.wall_us() + seconds * US)
    if by_wall:
        accepted = delayed.at(sent, at_us, expiry_s, ANNA)
    else:
        accepted = delayed.after(sent, seconds, expiry_s, ANNA)
    world.log.append(
        [], lambda error: delayed.settle(accepted, error), operations=accepted.operations
    )
    await world.flushed()


async def logged(world: World) -> list[bytes]:
    await world.settled()
    read = await world.disk.read(Offset(1), world.disk.high_watermark)
    return [message.payload for message in read.messages]


@pytest.mark.parametrize("by_wall", [False, True])
async def test_a_message_is_logged_when_it_is_due_and_not_before(
    world: World, by_wall: bool
) -> None:
    await delay(world, message("later", retain=True), 5, by_wall=by_wall)
    world.clock.advance(4.9)
    assert await logged(world) == []
    world.clock.advance(0.2)
    assert await logged(world) == [b"later"]
    assert len(world.asking.delayed) == world.asking.delayed.bytes == 0
    assert await world.disk.scan(DelayedDocument) == []
    assert await world.disk.scan(DelayedDeadlineDocument) == []


async def test_it_has_the_time_and_the_expiry_of_when_it_is_due(world: World) -> None:
    await delay(world, message("x", properties=b"\x03\0\x01t"), 5, expiry_s=60)
    world.clock.advance(5)
    await world.settled()
    (sent,) = (await world.disk.read(Offset(1), Offset(1))).messages
    now_us = world.clock.wall_us()
    assert (sent.published_at_us, sent.expires_at_us) == (now_us, now_us + 60 * US)
    assert (sent.publisher, sent.properties) == ("pub1", b"\x03\0\x01t")


async def test_what_is_due_together_comes_in_the_order_of_arrival(world: World) -> None:
    for n in range(150):
        await delay(world, message(str(n)), 5)
    world.clock.advance(5)
    assert await logged(world) == [str(n).encode() for n in range(150)]


async def test_a_delay_is_no_matter_of_the_wall_clock(world: World) -> None:
    await delay(world, message("delayed"), 60)
    await delay(world, message("at"), 60, by_wall=True)
    world.clock.set_wall(2_000_000_000)  # Thirty years ahead.
    world.clock.advance(LOOK_S)
    assert await logged(world) == [b"at"]
    world.clock.set_wall(0)
    world.clock.advance(60)
    assert await logged(world) == [b"at", b"delayed"]


async def test_it_outlives_a_crash_and_down_time_does_not_count(
    disk: Disk, clock: FakeClock
) -> None:
    async with running(disk, clock=clock) as world:
        await delay(world, message("delayed"), 60)
        await delay(world, message("at"), 600, by_wall=True)
        clock.advance(50)
        await world.settled()
    later = FakeClock(wall_s=clock.wall_us() // US + 3600, monotonic_s=9999)
    async with running(disk, clock=later) as world:
        assert len(world.asking.delayed) == 2
        later.advance(1)
        assert await logged(world) == [b"at"]
        await delay(world, message("another"), 1)  # Its number is a new one.
        later.advance(60)
        assert await logged(world) == [b"at", b"another", b"delayed"]


async def test_a_crash_neither_loses_nor_repeats_it(disk: Disk, clock: FakeClock) -> None:
    async with running(disk, clock=clock) as world:
        await delay(world, message("x"), 5)
        disk.may_commit.clear()
        clock.advance(5)
        for _ in range(20):
            await asyncio.sleep(0)
        # The commit that logs and removes it is under way, and is lost.
    disk.may_commit.set()
    for _ in range(2):
        async with running(disk, clock=clock) as world:
            clock.advance(60)
            assert await logged(world) == [b"x"]


async def test_what_cannot_be_stored_does_not_wait(world: World) -> None:
    accepted = world.asking.delayed.after(message("x"), 5, None, ANNA)
    world.asking.delayed.settle(accepted, StoreFull("full"))
    assert len(world.asking.delayed) == world.asking.delayed.bytes == 0
    world.clock.advance(6)
    assert await logged(world) == []


async def test_what_the_store_cannot_give_now_is_tried_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await delay(world, message("x"), 5)

    async def unavailable(*_: object) -> None:
        raise StoreUnavailable("a read failed")

    with monkeypatch.context() as patch:
        patch.setattr(world.disk, "get", unavailable)
        world.clock.advance(5)
        assert await logged(world) == []
    world.clock.advance(RETRY_S)
    assert await logged(world) == [b"x"]


async def test_one_that_is_lost_keeps_no_other(world: World, disk: Disk) -> None:
    await delay(world, message("lost"), 5)
    await delay(world, message("there"), 5)
    await disk.append((), [Delete(DelayedDocument, (f"{1:016x}",))])
    world.clock.advance(5)
    assert await logged(world) == [b"there"]
    assert len(world.asking.delayed) == 0


async def test_how_many_wait_and_how_many_bytes_is_limited(disk: Disk, clock: FakeClock) -> None:
    log = Log(disk, Counters(), clock, append_bytes_max=1 << 20)
    most = 2 * message("x" * 800).cost
    delayed = Delayed(log, Counters(), clock, lambda: None, messages_max=3, bytes_max=most)
    for _ in range(2):
        delayed.after(message("x" * 800), 5, None, ANNA)
    with pytest.raises(QuotaExceeded, match="delayed_bytes_max"):
        delayed.after(message("x" * 800), 5, None, ANNA)
    delayed = Delayed(log, Counters(), clock, lambda: None, messages_max=3, bytes_max=most)
    for _ in range(3):
        delayed.after(message(""), 5, None, ANNA)
    with pytest.raises(QuotaExceeded, match="delayed_messages_max"):
        delayed.at(message(""), WallUs(0), None, ANNA)


async def test_many_that_are_due_are_not_all_in_memory(world: World, disk: Disk) -> None:
    for n in range(6):
        await delay(world, message(bytes([n]) * (1 << 19)), 5)
    world.clock.advance(5)
    await world.settled()
    sizes = [sum(map(len, payloads)) for payloads, _, _ in disk.commits if payloads]
    assert sum(sizes) == 6 << 19
    assert max(sizes) <= 2 << 19


async def test_what_its_author_may_not_publish_any_more_is_dropped_and_counted(
    world: World, disk: Disk
) -> None:
    asked: list[tuple[Author, str]] = []

    def may_publish(author: Author, topic: str) -> bool:
        asked.append((author, topic))
        return topic != "b"

    world.asking.delayed.may_publish = may_publish
    for topic in ("a", "b", "c"):
        await delay(world, message(topic, topic), 5)
    world.clock.advance(5)
    assert await logged(world) == [b"a", b"c"]
    assert asked == [(ANNA, "a"), (ANNA, "b"), (ANNA, "c")]
    assert world.counters.dropped == {NO_RIGHT: 1}
    assert await disk.scan(DelayedDocument) == []
    assert len(world.asking.delayed) == 0
