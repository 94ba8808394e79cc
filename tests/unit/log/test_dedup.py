"""Deduplication keys: known for their window, across a crash, and no longer."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from broker.config import Config
from broker.documents import DedupDocument, Place
from broker.errors import QuotaExceeded, StoreError, StoreFull
from broker.log.dedup import FORGET_INTERVAL_S, FORGET_MAX, Known
from broker.message import NOT_STORED
from tests.support.clock import FakeClock
from tests.support.messages import message
from tests.support.world import Disk, World, running

CONFIG = Config(dedup_keys_max=2000)


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
    async with running(disk, CONFIG, clock) as world:
        yield world


async def send(world: World, key: str, *, topic: str = "t", window_s: float = 60) -> Known:
    """A message with a new key is published and stored."""
    dedup, place = world.asking.dedup, Place()
    known, remember = dedup.add("pub1", topic, key, window_s, place)

    def committed(error: StoreError | None) -> None:
        assert not dedup.settle(known, error, place)

    world.log.append([message(key, topic)], committed, operations=[remember], place=place)
    await world.settled()
    return known


async def test_a_key_is_of_one_publisher_and_topic(world: World) -> None:
    await send(world, "a")
    known = await send(world, "k")
    assert (known.offset, known.stored) == (2, True)
    find = world.asking.dedup.find
    assert find("pub1", "t", "k") is known
    assert find("pub2", "t", "k") is find("pub1", "u", "k") is find("pub1", "t", "l") is None


async def test_a_key_is_known_while_its_message_is_on_its_way(world: World) -> None:
    known, _ = world.asking.dedup.add("pub1", "t", "k", 60, Place())
    assert world.asking.dedup.find("pub1", "t", "k") is known
    assert (known.offset, known.stored) == (NOT_STORED, False)


async def test_a_key_whose_message_is_not_stored_is_free_again(world: World) -> None:
    known, _ = world.asking.dedup.add("pub1", "t", "k", 60, Place())
    world.asking.dedup.settle(known, StoreFull("full"), None)
    assert world.asking.dedup.find("pub1", "t", "k") is None
    assert world.asking.dedup.deadline() is None
    again = await send(world, "k")
    world.asking.dedup.settle(known, StoreFull("full"), None)  # Not this one.
    assert world.asking.dedup.find("pub1", "t", "k") is again


async def test_a_key_outlives_a_crash_with_its_offset(disk: Disk, clock: FakeClock) -> None:
    async with running(disk, CONFIG, clock) as world:
        await send(world, "a")
        await send(world, "k")
        clock.advance(50)
        await world.settled()
    later = FakeClock(wall_s=2_000_000_000)
    async with running(disk, CONFIG, later) as world:
        found = world.asking.dedup.find("pub1", "t", "k")
        assert found is not None
        assert (found.offset, found.stored) == (2, True)
        later.advance(70)
        await world.settled()
        assert world.asking.dedup.find("pub1", "t", "k") is None


async def test_keys_are_forgotten_after_their_window_a_few_at_a_time(
    world: World, disk: Disk
) -> None:
    dedup = world.asking.dedup
    for n in range(FORGET_MAX + 10):
        _, remember = dedup.add("pub1", "t", str(n), 60, None)
        world.log.append([], operations=[remember])
    await world.settled()
    world.clock.advance(61)
    await world.settled()
    assert len(dedup) == len(await disk.scan(DedupDocument)) == 10
    world.clock.advance(FORGET_INTERVAL_S)
    await world.settled()
    assert len(dedup) == len(await disk.scan(DedupDocument)) == 0
    assert dedup.deadline() is None


async def test_how_many_keys_there_are_is_limited(world: World) -> None:
    for n in range(CONFIG.dedup_keys_max):
        world.asking.dedup.add("pub1", "t", str(n), 60, None)
    with pytest.raises(QuotaExceeded, match="dedup_keys_max"):
        world.asking.dedup.add("pub1", "t", "one more", 60, None)
