"""A group leases to workers at other brokers: no job is with two, and none is lost."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from broker.documents import OwnerDocument, Put
from broker.documents.queues import MemberDocument
from broker.errors import StoreUnavailable
from broker.store.shared.memory_log import MemoryLog
from tests.support.groups import GROUP, member, numbers, publish, unsubscribe
from tests.support.patience import PATIENCE_S
from tests.support.two_brokers import (
    acknowledged,
    both_settled,
    id_of,
    left_over,
    one_more,
    pass_away,
    two_brokers,
)


async def test_workers_at_two_brokers_share_what_comes() -> None:
    async with two_brokers() as (a, b):
        here = await member(a, "w1")
        await both_settled(a, b)
        there = await member(b, "w2")
        await both_settled(a, b)
        await publish(b, 1, 10)
        await both_settled(a, b)
        assert numbers(here, there) == [*range(1, 11)]
        assert len(here.got) == len(there.got) == 5
        for worker in (here, there):
            await acknowledged(worker, a, b)
        await publish(a, 11, 20)
        await both_settled(a, b)
        assert numbers(here, there) == [*range(1, 21)]


async def test_what_is_acknowledged_elsewhere_is_over_and_leaves_nothing() -> None:
    async with two_brokers() as (a, b):
        here = await member(a, "w1")
        there = await member(b, "w2")
        await both_settled(a, b)
        await publish(a, 1, 9)
        await both_settled(a, b)
        await acknowledged(here, a, b)
        await acknowledged(there, a, b)
        here.close()
        there.close()
        await both_settled(a, b)
        assert await left_over(a) == []
        again = await member(b, "w3")
        await both_settled(a, b)
        assert again.got == []


async def test_a_group_with_workers_only_elsewhere_is_served() -> None:
    """It stays where its first worker was."""
    async with two_brokers() as (a, b):
        first = await member(a, "w1")
        second = await member(b, "w2")
        await both_settled(a, b)
        first.close()
        await publish(a, 1, 3)
        await both_settled(a, b)
        assert numbers(second) == [1, 2, 3]
        owner = await a.disk.get(OwnerDocument, (GROUP,))
        assert owner is not None
        assert owner.broker == id_of(a)


async def test_what_a_worker_elsewhere_had_goes_to_another_when_it_leaves() -> None:
    async with two_brokers() as (a, b):
        here = await member(a, "w1")
        there = await member(b, "w2")
        await both_settled(a, b)
        await publish(a, 1, 4)
        await both_settled(a, b)
        assert len(there.got) == 2
        there.close()
        await both_settled(a, b)
        assert numbers(here) == [1, 2, 3, 4]


async def test_what_a_worker_here_had_goes_to_one_elsewhere_when_it_leaves() -> None:
    async with two_brokers() as (a, b):
        here = await member(a, "w1")
        there = await member(b, "w2")
        await both_settled(a, b)
        await publish(a, 1, 4)
        await both_settled(a, b)
        here.close()
        await both_settled(a, b)
        assert numbers(there) == [1, 2, 3, 4]


async def test_a_worker_elsewhere_gets_no_more_than_it_has_room_for() -> None:
    async with two_brokers() as (a, b):
        await member(a, "w1", window=1)
        there = await member(b, "w2", window=3)
        await both_settled(a, b)
        await publish(a, 1, 10)
        await both_settled(a, b)
        assert len(there.got) == 3
        await acknowledged(there, a, b)
        assert len(there.got) == 6


async def test_what_workers_of_a_broker_that_died_had_goes_to_others() -> None:
    log = MemoryLog()
    async with two_brokers(log=log) as (a, b):
        here = await member(a, "w1")
        async with one_more(log, "c", a.clock) as c:
            there = await member(c, "w2")
            await both_settled(a, b, c)
            await publish(c, 1, 4)
            await both_settled(a, b, c)
            assert len(there.got) == 2
        await both_settled(a, b)
        assert len(here.got) == 2, "it may live still"
        await pass_away(a, b)
        assert numbers(here) == [1, 2, 3, 4]
        await acknowledged(here, a, b)
        assert await left_over(a) == []


async def test_a_lease_elsewhere_that_lasts_too_long_goes_to_another() -> None:
    async with two_brokers() as (a, b):
        there = await member(b, "w2")
        await both_settled(a, b)
        here = await member(a, "w1", window=1)
        await both_settled(a, b)
        await publish(a, 1, 2)
        await both_settled(a, b)
        assert (numbers(here), numbers(there)) == ([2], [1]) or numbers(here) == [1]
        await acknowledged(here, a, b)
        for _ in range(4):
            a.clock.advance(100)
            await both_settled(a, b)
        assert len(here.got) == 2, "it is tried again at the other"
        await acknowledged(there, a, b)
        here.close()
        await both_settled(a, b)
        assert len(there.got) == 1, "whoever was late has done it"


async def test_a_group_that_fails_cuts_off_its_workers_elsewhere_too() -> None:
    async with two_brokers() as (a, b):
        here = await member(a, "w1")
        there = await member(b, "w2")
        await both_settled(a, b)
        await publish(a, 1, 2)
        await both_settled(a, b)
        group = a.groups.get(GROUP)
        assert group is not None
        group.failed(ValueError("a mistake"))
        await both_settled(a, b)
        for worker in (here, there):
            assert [type(error) for error in worker.errors] == [StoreUnavailable]
            worker.close()
        await both_settled(a, b)
        again = await member(b, "w3")
        await both_settled(a, b)
        assert numbers(again) == [1, 2]
        await acknowledged(again, a, b)
        again.close()
        await both_settled(a, b)
        assert await left_over(b) == []


async def test_the_workers_of_a_broker_that_died_are_taken_out_in_parts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("broker.registry.groups.lending.AT_ONCE_MAX", 2)
    log = MemoryLog()
    async with two_brokers(log=log) as (a, b):
        here = await member(a, "w0")
        async with one_more(log, "c", a.clock) as c:
            there = [await member(c, f"w{number}") for number in range(1, 6)]
            await both_settled(a, b, c)
            await publish(c, 1, 12)
            await both_settled(a, b, c)
            assert len(numbers(*there)) == 10
        await pass_away(a, b)
        assert numbers(here) == [*range(1, 13)]
        await acknowledged(here, a, b)
        assert await left_over(b) == []


async def test_one_worker_elsewhere_that_is_cut_off_leaves_nothing() -> None:
    async with two_brokers() as (a, b):
        here = await member(a, "w1")
        there = await member(b, "w2")
        await both_settled(a, b)
        (remote,) = a.groups.lending._remotes.values()
        remote.broken(StoreUnavailable("the disk"))
        await both_settled(a, b)
        assert [type(error) for error in there.errors] == [StoreUnavailable]
        there.close()
        await both_settled(a, b)
        assert await left_over(a) == []
        assert not here.errors


async def test_a_worker_whose_broker_dies_while_its_group_is_busy_leaves_nothing() -> None:
    """It was to join, and never did."""
    log = MemoryLog()
    async with two_brokers(log=log) as (a, b):
        here = await member(a, "w1")
        group = a.groups.get(GROUP)
        assert group is not None
        async with group.lock:
            async with one_more(log, "c", a.clock) as c:
                await member(c, "w2")
                await both_settled(a, b, c)
            await pass_away(a, b)
        await both_settled(a, b)
        assert await left_over(a) == []
        await publish(a, 1, 2)
        await both_settled(a, b)
        assert numbers(here) == [1, 2]


async def test_a_group_that_cannot_be_opened_where_it_comes_to_cuts_off_its_workers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def open_group(*args: object) -> None:
        raise StoreUnavailable("the disk")

    log = MemoryLog()
    async with two_brokers(log=log) as (a, b):
        async with one_more(log, "c", a.clock) as c:
            await member(c, "w0")
            workers = [await member(world, f"w{number}") for number, world in enumerate((a, b), 1)]
            await both_settled(a, b, c)
        with monkeypatch.context() as patch:
            patch.setattr("broker.registry.groups.groups.Groups.open", open_group)
            await pass_away(a, b)
        for worker in workers:
            assert [type(error) for error in worker.errors] == [StoreUnavailable]
            worker.close()
        await both_settled(a, b)
        again = await member(b, "w3")
        await publish(a, 1, 2)
        await both_settled(a, b)
        assert numbers(again) == [1, 2]


async def test_a_group_that_has_ended_leaves_nothing_in_memory() -> None:
    async with two_brokers() as (a, b):
        here = await member(a, "w1")
        there = await member(b, "w2")
        await both_settled(a, b)
        await publish(a, 1, 4)
        await both_settled(a, b)
        lending = a.groups.lending
        assert lending._left
        group = a.groups.get(GROUP)
        assert group is not None
        await unsubscribe(b, there)
        await both_settled(a, b)
        await unsubscribe(a, here)
        await both_settled(a, b)
        assert a.groups.get(GROUP) is None
        assert (lending._left, lending._loans, lending._remotes) == ({}, {}, {})


async def test_workers_that_come_in_one_commit_join_in_parts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("broker.registry.groups.lending.AT_ONCE_MAX", 2)
    async with two_brokers() as (a, b):
        await member(a, "w0")
        await both_settled(a, b)
        numbers = range(10, 17)
        members = [Put(MemberDocument(GROUP, id_of(b), n, f"w{n}", 20)) for n in numbers]
        joined: list[int] = []

        async def look() -> None:
            while len(a.groups.lending._remotes) < len(members):
                await asyncio.sleep(0)
                joined.append(len(a.groups.lending._remotes))

        async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as both:
            both.create_task(look())
            both.create_task(b.log.commit_now(members))
        assert max(after - before for before, after in pairwise(joined)) <= 2


async def test_what_one_worker_had_cannot_be_read_which_keeps_no_other_from_its_group(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def held_by(redelivery: object, client_id: str) -> list[object]:
        if client_id == "w1":
            raise StoreUnavailable("the disk")
        return []

    async with two_brokers() as (a, b):
        here = await member(a, "w0")
        monkeypatch.setattr("broker.registry.groups.redelivery.Redelivery.held_by", held_by)
        group = a.groups.get(GROUP)
        assert group is not None
        async with group.lock:
            there = [await member(b, name) for name in ("w1", "w2")]
            await both_settled(a, b)
        await both_settled(a, b)
        assert [len(worker.errors) for worker in there] == [1, 0]
        there[0].close()
        await publish(a, 1, 4)
        await both_settled(a, b)
        assert (len(here.got), len(there[1].got)) == (2, 2)
