"""What a session still has to get, against what it does get."""

from __future__ import annotations

import random

import pytest

from broker.documents import SubscriptionDocument
from broker.message import Offset
from broker.registry.unread import STARTS_MAX, unread_of
from broker.session.session import Session
from broker.store import Amount
from tests.support.messages import message
from tests.support.world import Disk, Subscriber, World, placed, running, subscription


async def lag(world: World, session: Session) -> int:
    unread = unread_of(session)
    hw = world.disk.high_watermark
    plus, minus = (
        await world.disk.measure(unread.plus, hw),
        await world.disk.measure(unread.minus, hw),
    )
    in_flight = await world.disk.amount(unread.beside)
    return unread.total(in_flight, plus, minus).messages


async def left_to_get(world: World, subscriber: Subscriber) -> int:
    """How many messages it gets from here on, in flight ones included."""
    session = placed(subscriber)
    in_flight, before = len(session.in_flight), len(subscriber.got)
    subscriber.limit = 1 << 20
    subscriber.wake()
    for _ in range(5):
        await world.settled()
        session.in_flight.finish(subscriber.packet_ids)
        subscriber.packet_ids = []
        world.log.changed(session)
        await world.flushed()
        subscriber.wake()
    return in_flight + len(subscriber.got) - before


@pytest.mark.parametrize("seed", range(8))
async def test_lag_is_what_the_subscriber_still_gets(seed: int) -> None:
    random_ = random.Random(seed)
    filters = ["a/#", "a/1", "+/1", "b/2", "#"]
    async with running(Disk()) as world:
        subscriber = Subscriber(world, limit=300)
        await subscriber.open()
        for _ in range(12):
            batch = [
                message(
                    str(n),
                    f"{random_.choice('ab')}/{random_.randrange(4)}",
                    qos=random_.choice([0, 1, 2]),
                )
                for n in range(random_.randrange(1, 6))
            ]
            await world.publish(*batch)
            what = random_.random()
            if what < 0.5:
                start = random_.choice([world.disk.high_watermark, Offset(2)])
                replaying = random_.random() < 0.3
                subscriber.subscribe(
                    subscription(random_.choice(filters), 2, start=start, replaying=replaying)
                )
            if what < 0.3:
                subscriber.limit = random_.choice([0, 300])
            if what > 0.6:
                session = placed(subscriber)
                some = random_.sample(subscriber.packet_ids, len(subscriber.packet_ids) // 2)
                session.in_flight.finish(some)
                subscriber.packet_ids = [p for p in subscriber.packet_ids if p not in some]
                world.log.changed(session)
            await world.settled()
            if what > 0.9:
                subscriber.close()
                await world.settled()
                subscriber = Subscriber(world, limit=subscriber.limit)
                await subscriber.open()
                subscriber.got = []
                left = placed(subscriber).in_flight.unfinished()
                subscriber.packet_ids = [entry.packet_id for entry in left]
        expected = await lag(world, placed(subscriber))
        assert expected == await left_to_get(world, subscriber)
        assert await lag(world, placed(subscriber)) == 0


def documents(count: int) -> list[SubscriptionDocument]:
    return [subscription(f"t/{n}", start=n + 1) for n in range(count)]


def test_subscriptions_that_begin_at_many_places_are_not_told_apart() -> None:
    session = Session("sub1", created_at_us=0, start=Offset(0), inflight_max=10)
    for document in documents(STARTS_MAX):
        session.subscribe(document)
    assert unread_of(session).exact
    session.subscribe(subscription("late", start=STARTS_MAX + 1))
    unread = unread_of(session)
    assert not unread.exact
    assert len(unread.plus) == STARTS_MAX
    assert unread.plus[-1].after == STARTS_MAX


def test_a_total_has_the_oldest_time_while_there_is_anything() -> None:
    unread = unread_of(Session("sub1", created_at_us=0, start=Offset(0), inflight_max=10))
    assert unread.total(Amount(), [], []) == Amount()
    in_flight, more = Amount(1, 10, 7), Amount(3, 30, 5)  # type: ignore[arg-type]
    assert unread.total(in_flight, [more], [Amount(1, 10, 5)]) == Amount(3, 30, 5)  # type: ignore[arg-type]
    assert unread.total(Amount(), [more], [more]).oldest_at_us is None


def test_shared_subscriptions_are_for_their_group_to_count() -> None:
    session = Session("sub1", created_at_us=0, start=Offset(0), inflight_max=10)
    session.subscribe(subscription("$share/g/t"))
    assert unread_of(session).plus == []
