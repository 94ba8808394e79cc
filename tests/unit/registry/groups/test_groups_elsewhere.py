"""A group of workers is at one broker at a time: no job is handed out twice."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest

from broker.config import Config
from broker.documents import Delete, OwnerDocument, SessionDocument, SubscriptionDocument
from broker.errors import QuotaExceeded, StoreConflict
from broker.store.shared.memory_log import MemoryLog
from tests.support.groups import GROUP, member, numbers, publish
from tests.support.two_brokers import (
    both_settled,
    id_of,
    one_more,
    opened,
    pass_away,
    two_brokers,
)
from tests.support.world import Subscriber, placed


async def test_a_worker_at_another_broker_is_refused_and_gets_no_job() -> None:
    async with two_brokers() as (a, b):
        there = await member(a, "w1")
        await both_settled(a, b)
        with pytest.raises(QuotaExceeded, match="connected to another broker"):
            await member(b, "w2")
        await publish(b, 1, 10)
        await both_settled(a, b)
        assert numbers(there) == [*range(1, 11)]
        assert b.groups.get(GROUP) is None


async def test_a_worker_whose_session_comes_elsewhere_is_refused_there_and_welcome_back() -> None:
    async with two_brokers() as (a, b):
        stays = await member(a, "w1", expiry_s=100)
        moves = await member(a, "w2", expiry_s=100)
        moves.close()
        await both_settled(a, b)
        with pytest.raises(QuotaExceeded, match="connected to another broker"):
            await member(b, "w2", expiry_s=100)
        await both_settled(a, b)
        back = await member(a, "w2", expiry_s=100)
        await publish(a, 1, 10)
        await both_settled(a, b)
        assert numbers(stays, back) == [*range(1, 11)]
        assert numbers(back)


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
        with pytest.raises(QuotaExceeded, match="connected to another broker"):
            await member(a, "w1", expiry_s=100)


async def test_the_group_of_a_broker_that_died_goes_on_elsewhere() -> None:
    log = MemoryLog()
    async with two_brokers(log=log) as (a, b):
        async with one_more(log, "c", a.clock) as c:
            worker = await member(c, "w1")
            await publish(c, 1, 3)
            await worker.acknowledge()
            await publish(c, 4, 6)
            await both_settled(a, b, c)
        with pytest.raises(QuotaExceeded, match="connected to another broker"):
            await member(a, "w2")
        await pass_away(a, b)
        second = await member(a, "w3")
        await both_settled(a, b)
        assert numbers(second) == [4, 5, 6]


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


async def test_of_two_workers_that_come_at_once_one_stays() -> None:
    """Whichever broker is quicker."""
    outcomes: Counter[str] = Counter()
    for seed in range(20):
        log = MemoryLog(turns=6, random_=random.Random(seed))
        async with two_brokers(log=log) as (a, b):
            coming = [member(world, f"w{id_of(world)[0]}") for world in (a, b)]
            there = await a.passing_time(asyncio.gather(*coming, return_exceptions=True))
            await both_settled(a, b)
            stays = [one for one in there if isinstance(one, Subscriber) and not one.errors]
            refused = [one for one in there if isinstance(one, QuotaExceeded | StoreConflict)]
            assert (len(stays), len(refused)) == (1, 1), seed
            outcomes["ab"[there.index(stays[0])]] += 1
            await publish(a, 1, 3)
            await both_settled(a, b)
            assert numbers(*stays) == [1, 2, 3]
    assert min(outcomes["a"], outcomes["b"]) > 0
