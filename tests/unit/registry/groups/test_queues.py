"""What an operator does to groups and dead letters, while the broker runs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from broker.documents import CursorDocument, SessionDocument
from broker.documents.queues import DeadLetterDocument, GroupDocument, RetryDocument
from broker.errors import CommandRefused, NotFound
from broker.message import Offset
from broker.registry.groups.lingering import UNREAD
from broker.registry.groups.queues import Queues
from tests.support.groups import GROUP, member, numbers, publish
from tests.support.world import Disk, World, placed, running

MADE = GroupDocument(GROUP, 3, 1000, 8000, 60_000, 0)


def queues(world: World) -> Queues:
    return Queues(world.log, world.groups, world.clock)


async def create(world: World, start: str = "", made: GroupDocument = MADE) -> Offset:
    done = await world.passing_time(queues(world).create(replace(made), start))
    await world.settled()
    return done.begins_at


async def got(world: World, client_id: str) -> list[int]:
    coming = await member(world, client_id)
    await world.settled()
    return numbers(coming)


async def refuse_all(world: World, window: int = 100) -> None:
    """A member refuses what there is, for good."""
    one = await member(world, "one", window=window)
    await world.settled()
    session, ids = placed(one), one.packet_ids
    leases = session.in_flight.leases.refuse(ids)
    session.in_flight.puback(ids)
    one.packet_ids = []
    world.groups.refusals.add(session, leases, "no")
    await world.settled()
    one.close()
    await world.settled()


async def test_a_group_keeps_what_comes_before_its_first_member(world: World) -> None:
    await publish(world, 1, 1)
    assert await create(world) == 2
    await publish(world, 2, 3)
    assert world.groups.open_count == 0
    assert await got(world, "one") == [2, 3]


@pytest.mark.parametrize(("start", "first"), [("earliest", 1), ("-2", 2), ("3", 3), ("latest", 4)])
async def test_a_group_begins_where_it_is_told(world: World, start: str, first: int) -> None:
    await publish(world, 1, 3)
    assert await create(world, start) == first
    await publish(world, 4, 4)
    assert await got(world, "one") == [*range(first, 5)]


async def test_it_outlives_its_members_and_a_crash() -> None:
    disk = Disk()
    async with running(disk) as world:
        await create(world)
        one = await member(world, "one")
        world.groups.leave(placed(one), GROUP)
        world.delivery.unsubscribe(placed(one), GROUP)
        await world.settled()
        one.close()
        world.clock.advance(100 * 86_400)
        await world.settled()
    async with running(disk) as world:
        world.clock.advance(100 * 86_400)
        await world.settled()
        assert await disk.get(SessionDocument, (GROUP,)) is not None
        await publish(world, 1, 1)
        assert await got(world, "two") == [1]


async def test_one_that_members_made_is_taken_over_where_it_is(world: World) -> None:
    one = await member(world, "one")
    await publish(world, 1, 1)
    with pytest.raises(CommandRefused, match="has its place"):
        await create(world, "earliest")
    assert (await queues(world).create(replace(MADE), "")).taken_over
    group = world.groups.get(GROUP)
    assert group is not None
    assert not group.redelivery.policy.refusals_are_final
    await one.acknowledge()


async def test_there_is_one_of_a_name_and_only_of_sense(world: World) -> None:
    await create(world)
    with pytest.raises(CommandRefused, match="already"):
        await create(world)
    other = "$share/other/t"
    for nonsense in (
        GroupDocument("t", 3, 1, 1, 1000, 0),
        GroupDocument(other, 0, 1, 1, 1000, 0),
        GroupDocument(other, 1, 2, 1, 1000, 0),
        GroupDocument(other, 1, 1, 1, 999, 0),
    ):
        with pytest.raises(CommandRefused):
            await queues(world).create(nonsense, "")
    assert [*world.groups.created] == [GROUP]


async def test_a_removed_group_ends_when_nobody_is_subscribed(world: World) -> None:
    await create(world)
    one = await member(world, "one")
    with pytest.raises(CommandRefused, match="members"):
        await queues(world).remove(GROUP)
    one.close()
    await world.settled()
    await world.passing_time(queues(world).remove(GROUP))
    await world.settled()
    assert await world.disk.get(SessionDocument, (GROUP,)) is None
    assert await world.disk.scan(GroupDocument) == []
    with pytest.raises(NotFound):
        await queues(world).remove(GROUP)


@pytest.mark.parametrize("is_open", [True, False])
async def test_a_dead_letter_that_is_given_back_is_delivered_again(
    world: World, is_open: bool
) -> None:
    await create(world, made=replace(MADE, attempts_max=1))
    await publish(world, 1, 3)
    await refuse_all(world)
    assert len(await world.disk.scan(DeadLetterDocument)) == 3
    two = await member(world, "two") if is_open else None
    assert await world.passing_time(queues(world).redrive(GROUP, Offset(2))) == 1
    two = two or await member(world, "two")
    await world.settled()
    assert [(m.payload, g.lease.attempt if g.lease else 0) for m, g in two.got] == [(b"2", 1)]
    assert await world.passing_time(queues(world).redrive(GROUP, None)) == 2
    await world.settled()
    assert numbers(two) == [1, 2, 3]
    assert await world.disk.scan(DeadLetterDocument) == []
    await two.acknowledge()
    assert await world.disk.scan(RetryDocument) == []
    with pytest.raises(NotFound):
        await queues(world).redrive(GROUP, None)


async def test_a_dropped_one_is_counted(world: World) -> None:
    await create(world, made=replace(MADE, attempts_max=1))
    await publish(world, 1, 2)
    await refuse_all(world)
    assert await world.passing_time(queues(world).drop(GROUP, Offset(1))) == 1
    assert [d.offset for d in await world.disk.scan(DeadLetterDocument)] == [2]
    assert world.counters.dropped == {"dead letter dropped": 1}
    with pytest.raises(NotFound):
        await queues(world).drop(GROUP, Offset(1))


async def test_a_group_that_is_gone_gets_nothing_back(world: World) -> None:
    await create(world, made=replace(MADE, attempts_max=1))
    await publish(world, 1, 1)
    await refuse_all(world)
    await world.passing_time(queues(world).remove(GROUP))
    await world.settled()
    assert await world.disk.get(CursorDocument, (GROUP,)) is None
    with pytest.raises(CommandRefused, match="gone"):
        await queues(world).redrive(GROUP, None)
    assert len(await world.disk.scan(DeadLetterDocument)) == 1


async def test_what_a_group_is_to_try_again_when_it_ends_is_counted(world: World) -> None:
    """P5"""
    await create(world)
    await publish(world, 1, 2)
    await refuse_all(world)
    assert len(await world.disk.scan(RetryDocument)) == 2
    await world.passing_time(queues(world).remove(GROUP))
    await world.settled()
    assert await world.disk.scan(RetryDocument) == []
    assert world.counters.dropped == {UNREAD: 2}
