"""A group is one over all brokers: where it is, where it goes, and when it ends."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest

from broker.config import Config
from broker.documents import Delete, OwnerDocument, SessionDocument, SubscriptionDocument
from broker.errors import NotAuthorized
from broker.store.shared.memory_log import MemoryLog
from tests.support.groups import GROUP, member, numbers, publish, unsubscribe
from tests.support.two_brokers import (
    acknowledged,
    both_settled,
    id_of,
    left_over,
    one_more,
    opened,
    pass_away,
    store_of,
    two_brokers,
)
from tests.support.world import placed, subscription


async def test_a_worker_whose_session_comes_elsewhere_goes_on_there() -> None:
    async with two_brokers() as (a, b):
        stays = await member(a, "w1", expiry_s=100)
        moves = await member(a, "w2", expiry_s=100)
        await publish(a, 1, 4)
        await both_settled(a, b)
        moved = await member(b, "w2", expiry_s=100)
        await both_settled(a, b)
        assert moves.lost
        assert numbers(stays, moved) == [1, 2, 3, 4]
        await publish(a, 5, 8)
        await both_settled(a, b)
        assert numbers(stays, moved) == [*range(1, 9)]
        assert numbers(moved)


async def test_when_no_worker_is_left_the_group_goes_elsewhere_with_what_is_unread() -> None:
    async with two_brokers() as (a, b):
        first = await member(a, "w1", expiry_s=100)
        await publish(a, 1, 3)
        await first.acknowledge()
        first.close()
        await both_settled(a, b)
        await publish(a, 4, 6)
        await both_settled(a, b)
        second = await member(b, "w2")
        await both_settled(a, b)
        assert numbers(second) == [4, 5, 6]
        owner = await a.disk.get(OwnerDocument, (GROUP,))
        assert owner is not None
        assert owner.broker == id_of(b)


async def test_the_group_of_a_broker_that_died_goes_on_elsewhere() -> None:
    log = MemoryLog()
    async with two_brokers(log=log) as (a, b):
        async with one_more(log, "c", a.clock) as c:
            worker = await member(c, "w1")
            await publish(c, 1, 3)
            await worker.acknowledge()
            await publish(c, 4, 6)
            await both_settled(a, b, c)
        early = await member(a, "w2")
        await both_settled(a, b)
        assert early.got == [], "the broker may live still"
        await pass_away(a, b)
        assert numbers(early) == [4, 5, 6]


@pytest.mark.parametrize("unsubscribes", [False, True])
async def test_a_group_ends_when_its_last_subscriber_ends_elsewhere(unsubscribes: bool) -> None:
    """Else what it has unread is kept for nobody."""
    async with two_brokers(Config(group_linger_s=0)) as (a, b):
        (await member(a, "w1", expiry_s=100)).close()
        await both_settled(a, b)
        assert GROUP in a.sessions.kept
        there = await opened(b, "w1", expiry_s=100)
        await both_settled(a, b)
        assert GROUP in a.sessions.kept
        if unsubscribes:
            placed(there).unsubscribe(GROUP)
            await b.passing_time(b.log.commit_now([Delete(SubscriptionDocument, ("w1", GROUP))]))
        else:
            there.close()
            await both_settled(a, b)
            b.clock.advance(101)
        for _ in range(3):
            await both_settled(a, b)
        assert GROUP not in a.sessions.kept
        names = [document.client_id for document in await b.disk.scan(SessionDocument)]
        assert names == (["w1"] if unsubscribes else [])


async def test_the_last_unsubscribe_ends_the_group_wherever_it_is() -> None:
    async with two_brokers() as (a, b):
        here = await member(a, "w1", expiry_s=100)
        there = await member(b, "w2", expiry_s=100)
        await both_settled(a, b)
        await publish(a, 1, 4)
        await both_settled(a, b)
        await unsubscribe(a, here)
        await acknowledged(here, a, b)
        assert GROUP in a.sessions.kept
        await publish(a, 5, 5)
        await both_settled(a, b)
        assert numbers(there)[-1] == 5
        await unsubscribe(b, there)
        await both_settled(a, b)
        assert GROUP not in a.sessions.kept
        assert GROUP not in [d.client_id for d in await b.disk.scan(SessionDocument)]
        assert await left_over(b) == []
        await acknowledged(there, a, b)  # What it was sent is its own.
        assert len(placed(there).in_flight) == 0


async def test_of_two_workers_that_come_at_once_both_stay() -> None:
    """Whichever broker is quicker."""
    owners: Counter[str] = Counter()
    for seed in range(20):
        log = MemoryLog(turns=6, random_=random.Random(seed))
        async with two_brokers(log=log) as (a, b):
            coming = [member(world, f"w{id_of(world)[0]}") for world in (a, b)]
            there = await a.passing_time(asyncio.gather(*coming))
            await both_settled(a, b)
            assert not any(each.errors for each in there)
            owner = await a.disk.get(OwnerDocument, (GROUP,))
            assert owner is not None
            owners[owner.broker] += 1
            await publish(a, 1, 6)
            await both_settled(a, b)
            assert numbers(*there) == [1, 2, 3, 4, 5, 6], seed
            assert len(there[0].got) == 3
    assert len(owners) == 2


async def test_a_group_of_another_user_is_refused_elsewhere_too() -> None:
    async with two_brokers() as (a, b):
        first = await opened(a, "w1")
        placed(first).tally.user = "anna"
        await a.groups.join(placed(first), subscription(GROUP, client_id="w1"), first)
        await both_settled(a, b)
        for user, may in (("ben", False), ("anna", True)):
            there = await opened(b, f"w-{user}")
            placed(there).tally.user = user
            joining = b.groups.join(placed(there), subscription(GROUP), there)
            if may:
                await b.passing_time(joining)
            else:
                with pytest.raises(NotAuthorized):
                    await b.passing_time(joining)


async def test_a_group_that_a_command_brings_from_a_dead_broker_serves_its_workers() -> None:
    log = MemoryLog()
    async with two_brokers(log=log) as (a, b):
        async with one_more(log, "c", a.clock) as c:
            await member(c, "w1")
            await both_settled(a, b, c)
            there = await member(a, "w2")
            await both_settled(a, b, c)
        assert await store_of(b).declare_dead("c.0")
        async with b.sessions.held(GROUP, b.clock.now()) as held:
            assert held is not None
        await publish(a, 1, 3)
        await both_settled(a, b)
        assert numbers(there) == [1, 2, 3]
        owner = await a.disk.get(OwnerDocument, (GROUP,))
        assert owner is not None
        assert owner.broker == id_of(b)
