"""What retention removed unread goes to nobody from memory, and each is told. (P5)"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from broker.clock import SystemClock
from broker.config import Config
from broker.documents import SubscriptionDocument
from broker.registry.upkeep.retaining import Retaining
from tests.support.messages import numbered
from tests.support.patience import PATIENCE_S
from tests.support.world import Subscriber, World, payloads, placed, subscription


async def trim(world: World, directory: Path, before: int, filters: Sequence[str] = ()) -> None:
    config = Config(data_dir=directory)
    trims = Retaining(*(config, world.log, world.delivery, world.counters, SystemClock())).trims
    await trims.begin(str(before), filters, unread=True, dry_run=False)
    async with asyncio.timeout(PATIENCE_S):
        while not trims.state()["done"]:  # noqa: ASYNC110  There is no event.
            await asyncio.sleep(0)
    await world.settled()


async def waiting(world: World, name: str, document: SubscriptionDocument) -> Subscriber:
    """A client that takes nothing yet."""
    sub = Subscriber(world)
    sub.limit = 0
    await sub.open(name)
    sub.subscribe(replace(document, client_id=name))
    return sub


def told(sub: Subscriber) -> list[range]:
    return [gap for _, grant in sub.got for gap in grant.missing]


@pytest.mark.parametrize("messages", [20, 3000])
async def test_what_waits_is_read_again(world: World, tmp_path: Path, messages: int) -> None:
    """Of who is live, and of who is behind, as more came than waits in memory."""
    sub = await waiting(world, "s", subscription("a"))
    other = await waiting(world, "other", subscription("b"))
    await world.publish(*numbered(messages, lambda n: "ab"[n % 2]))
    await trim(world, tmp_path, 11, ["a"])
    for each in (sub, other):
        each.limit = 1 << 30
        each.wake()
        await world.settled()
        while each.packet_ids:
            await each.acknowledge()
    every = range(1, messages + 1)
    assert payloads(sub.got) == [b"%d" % n for n in every if n % 2 == 0 and n >= 11]
    assert payloads(other.got) == [b"%d" % n for n in every if n % 2]
    assert [o for gap in told(sub) for o in gap] == [2, 4, 6, 8, 10]
    assert told(other) == []
    assert world.counters.dropped["removed by retention"] == 5
    assert sub.errors == other.errors == []
    assert placed(sub).cursor() == placed(other).cursor() == messages
    await world.publish(*numbered(1, "a", first=9000))
    assert payloads(sub.got)[-1] == b"9000"


async def test_where_nothing_is_left_the_next_message_tells(world: World, tmp_path: Path) -> None:
    sub = await waiting(world, "s", subscription("a"))
    await world.publish(*numbered(5, "a"))
    await trim(world, tmp_path, 6)
    sub.limit = 1 << 20
    sub.wake()
    await world.settled()
    assert sub.got == []
    await world.publish(*numbered(1, "a", first=6))
    assert (payloads(sub.got), told(sub)) == ([b"6"], [range(1, 6)])


async def test_what_waits_of_a_replay_is_read_again(world: World, tmp_path: Path) -> None:
    await world.publish(*numbered(20, "a"))
    sub = await waiting(world, "s", subscription("a", replaying=True))
    await world.settled()
    assert placed(sub).supply.aside
    await trim(world, tmp_path, 11)
    sub.limit = 1 << 20
    sub.wake()
    await world.settled()
    assert payloads(sub.got) == [b"%d" % n for n in range(11, 21)]
    assert told(sub) == [range(1, 11)]


async def test_who_comes_back_does_not_get_it_from_memory(world: World, tmp_path: Path) -> None:
    sub = await waiting(world, "s", subscription("a"))
    sub.close()
    await world.publish(*numbered(20, "a"))
    await trim(world, tmp_path, 11)
    sub.limit = 1 << 20
    await sub.open("s")
    await world.settled()
    assert payloads(sub.got) == [b"%d" % n for n in range(11, 21)]
    assert told(sub) == [range(1, 11)]
