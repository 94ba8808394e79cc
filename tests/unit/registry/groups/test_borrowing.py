"""Workers whose group is at another broker: what they say counts there."""

from __future__ import annotations

import pytest

from broker.documents.queues import DeadLetterDocument, GroupDocument, MemberDocument, RetryDocument
from broker.message import Offset
from broker.registry.groups.loans import Loaned
from broker.registry.groups.queues import Queues
from broker.registry.groups.redelivery import HOLD_S
from tests.support.groups import GROUP, member, numbers, publish, unsubscribe
from tests.support.two_brokers import acknowledged, both_settled, left_over, two_brokers
from tests.support.world import placed


async def test_what_a_worker_elsewhere_refuses_is_tried_again_and_then_a_dead_letter() -> None:
    async with two_brokers() as (a, b):
        queues = Queues(a.log, a.groups, a.clock)
        await a.passing_time(
            queues.create(GroupDocument(GROUP, 2, 1000, 1000, 60_000, created_at_us=0), "")
        )
        there = await member(b, "w2")
        await both_settled(a, b)
        await publish(a, 1, 1)
        await both_settled(a, b)
        for attempt in (1, 2):
            assert numbers(there) == [1] * attempt
            lease = placed(there).in_flight.leases.refuse(there.packet_ids)
            assert [each.attempt for each in lease] == [attempt]
            b.groups.refusals.add(placed(there), lease, "bad")
            placed(there).in_flight.puback(there.packet_ids)
            there.packet_ids = []
            await both_settled(a, b)
            a.clock.advance(1)
            await both_settled(a, b)
        [letter] = await b.disk.scan(DeadLetterDocument)
        assert (letter.attempts, letter.reason, letter.worker) == (2, "bad", "w2")
        assert await a.disk.scan(RetryDocument) == []
        assert [m.topic for m in a.disk.content.log if m.topic.startswith("$dead")] == [
            "$dead/workers/jobs/a"
        ]


async def test_a_message_that_one_worker_cannot_have_goes_to_another() -> None:
    async with two_brokers() as (a, b):
        there = await member(b, "w2")
        there.payload_bytes_max = 1
        await both_settled(a, b)
        here = await member(a, "w1")
        await both_settled(a, b)
        await publish(a, 10, 13)
        await both_settled(a, b)
        assert numbers(here) == [10, 11, 12, 13]
        here.payload_bytes_max = 1
        await acknowledged(here, a, b)
        await publish(a, 14, 14)
        await both_settled(a, b)
        [letter] = await a.disk.scan(DeadLetterDocument)
        assert letter.reason == "packet too large for the client"


async def test_who_unsubscribes_elsewhere_finishes_what_it_has_and_gets_no_more() -> None:
    async with two_brokers() as (a, b):
        here = await member(a, "w1", window=2)
        there = await member(b, "w2", expiry_s=100)
        await both_settled(a, b)
        await publish(a, 1, 6)
        await both_settled(a, b)
        had = numbers(there)
        assert len(had) == 4
        await unsubscribe(b, there)
        await both_settled(a, b)
        await acknowledged(there, a, b)
        await acknowledged(here, a, b)
        await publish(a, 7, 8)
        await both_settled(a, b)
        assert numbers(there) == had
        assert numbers(here, there) == [*range(1, 9)]
        assert len([d for d in await left_over(a) if isinstance(d, MemberDocument)]) == 0


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_of_any_quality_of_service(qos: int) -> None:
    async with two_brokers() as (a, b):
        here = await member(a, "w1", qos=2)
        there = await member(b, "w2", qos=2)
        await both_settled(a, b)
        await publish(a, 1, 6, qos=qos)
        await both_settled(a, b)
        assert len(here.got) == len(there.got) == 3
        assert {min(m.qos, g.qos) for m, g in (*here.got, *there.got)} == {qos}
        if qos != 1:  # Its lease has ended, and nobody else gets it.
            there.close()
            await both_settled(a, b)
            assert numbers(here, there) == [*range(1, 7)]


async def test_a_broker_that_stops_leaves_its_workers_what_they_had_for_a_while() -> None:
    async with two_brokers() as (a, b):
        there = await member(b, "w2", expiry_s=100)
        await both_settled(a, b)
        here = await member(a, "w1", window=1)
        await both_settled(a, b)
        await publish(a, 1, 3)
        await both_settled(a, b)
        had = numbers(there)
        b.groups.lingering.stopping = True
        there.close()
        await both_settled(a, b)
        await acknowledged(here, a, b)
        assert len(here.got) == 1, "the others are held for whoever had them"
        back = await member(a, "w2", expiry_s=100)
        await both_settled(a, b)
        assert numbers(back) == had
        a.clock.advance(HOLD_S + 1)
        await both_settled(a, b)
        assert len(here.got) == 1


async def test_a_worker_is_told_what_is_missing_before_its_message() -> None:
    async with two_brokers() as (a, b):
        await member(a, "w1")
        await both_settled(a, b)
        there = await member(b, "w2")
        await publish(a, 1, 1)
        await both_settled(a, b)
        borrowing = b.groups.borrowing
        number = borrowing.groups_of(placed(there))[GROUP].number
        borrowing.hand_on(GROUP, [Loaned(number, 9, Offset(1), 1, gaps=[[3, 5], [7, 8]])])
        await both_settled(a, b)
        assert there.got[-1][1].missing == (range(3, 5), range(7, 8))
