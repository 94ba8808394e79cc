"""A group comes to another broker: whoever has something of it keeps that."""

from __future__ import annotations

import pytest

from broker.documents import CursorDocument
from broker.documents.queues import ReportDocument
from broker.message import Offset
from broker.registry.groups.lent import Lent
from broker.session.cursor import listed
from broker.store.shared.memory_log import MemoryLog
from tests.support.clock import FakeClock
from tests.support.groups import GROUP, member, numbers, publish
from tests.support.two_brokers import (
    acknowledged,
    both_settled,
    left_over,
    one_more,
    pass_away,
    two_brokers,
)
from tests.support.world import placed


async def test_workers_stay_and_keep_what_they_have_when_the_broker_of_the_group_dies() -> None:
    """Only what the workers at that broker had comes again."""
    log = MemoryLog()
    async with two_brokers(log=log) as (a, b):
        async with one_more(log, "c", a.clock) as c:
            dies = await member(c, "w1")
            workers = [await member(world, f"w{n}") for n, world in ((2, a), (3, b))]
            await both_settled(a, b, c)
            await publish(a, 1, 9)
            await both_settled(a, b, c)
            lost = numbers(dies)
            kept = numbers(*workers)
            assert len(lost) == 3
            await workers[0].acknowledge()
            await both_settled(a, b, c)
            await publish(a, 10, 12)
            await both_settled(a, b, c)
            lost += numbers(dies)[3:]
            kept = numbers(*workers)
        await pass_away(a, b)
        assert not any(worker.errors or worker.lost for worker in workers)
        assert numbers(*workers) == sorted([*kept, *lost])
        for worker in workers:
            await acknowledged(worker, a, b)
        await publish(b, 13, 20)
        await both_settled(a, b)
        assert numbers(*workers) == sorted([*kept, *lost, *range(13, 21)])
        for worker in workers:
            await acknowledged(worker, a, b)
            worker.close()
        await both_settled(a, b)
        assert await left_over(b) == []
        again = await member(b, "w9")
        await both_settled(a, b)
        assert again.got == []


async def test_what_is_acknowledged_while_nobody_has_the_group_counts() -> None:
    log = MemoryLog()
    async with two_brokers(log=log) as (a, b):
        async with one_more(log, "c", a.clock) as c:
            dies = await member(c, "w1", window=1)
            there = await member(a, "w2")
            await both_settled(a, b, c)
            await publish(a, 1, 5)
            await both_settled(a, b, c)
            [lost] = numbers(dies)
        await there.acknowledge()
        await both_settled(a, b)
        await pass_away(a, b)
        assert numbers(there) == sorted([1, 2, 3, 4, 5])
        await acknowledged(there, a, b)
        there.close()
        again = await member(b, "w3")
        await both_settled(a, b)
        assert again.got == [], lost


async def test_offsets_of_loans_are_listed_as_in_flight() -> None:
    """Else the next broker that has the group hands them out again."""
    async with two_brokers() as (a, b):
        there = await member(b, "w2")
        await both_settled(a, b)
        await member(a, "w1")
        await publish(a, 1, 2)
        await both_settled(a, b)
        assert len(there.got) == 1
        cursor = await b.disk.get(CursorDocument, (GROUP,))
        assert cursor is not None
        assert there.got[0][0].offset in {entry.offset for entry in listed(cursor)}
        assert cursor.sent_through == Offset(2)


async def test_what_a_worker_says_while_its_group_comes_to_its_broker_is_heard(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = MemoryLog()
    async with one_more(log, "a", FakeClock()) as a:
        async with one_more(log, "c", a.clock) as c:
            await member(c, "w1", window=1)
            there = await member(a, "w2")
            await both_settled(a, c)
            await publish(a, 1, 5)
            await both_settled(a, c)
        found = a.groups.lending.found
        had = numbers(there)

        async def acknowledged_meanwhile(name: str) -> Lent:
            lent = await found(name)
            session = placed(there)
            session.in_flight.puback(there.packet_ids)
            there.packet_ids = []
            a.log.changed(session)
            a.groups.settle(session)
            return lent

        monkeypatch.setattr(a.groups.lending, "found", acknowledged_meanwhile)
        await pass_away(a)
        monkeypatch.undo()
        assert await a.disk.scan(ReportDocument) == [], "nobody else hears of what was said here"
        there.close()
        again = await member(a, "w3")
        await both_settled(a)
        assert len(had) == 4
        assert numbers(again) == sorted({1, 2, 3, 4, 5} - {*had})
