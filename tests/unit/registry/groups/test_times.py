"""When something of the groups is due: one deadline for all of them."""

from __future__ import annotations

from broker.documents.queues import GroupDocument
from broker.message import Monotonic
from tests.support.groups import GROUP, member, publish
from tests.support.world import World, placed


async def test_nothing_is_due_while_nobody_has_anything(world: World) -> None:
    await member(world, "one")
    assert world.groups.times.deadline() is None


async def test_the_deadline_is_the_end_of_the_oldest_lease(world: World) -> None:
    world.groups.created[GROUP] = GroupDocument(GROUP, 5, 1000, 1000, 60_000, 1)
    one = await member(world, "one")
    await publish(world, 1, 1)
    begun = next(placed(one).in_flight.leases.current())[1].leased_at
    assert world.groups.times.deadline() == begun + 60
    world.clock.advance(30)
    await publish(world, 2, 2)
    assert world.groups.times.deadline() == begun + 60
    await one.acknowledge()
    world.clock.advance(31)
    await world.settled()
    assert world.groups.times.deadline() is None, "nobody has anything any more"


async def test_a_retry_of_a_closed_group_is_not_waited_for(world: World) -> None:
    times = world.groups.times
    times.retry_at("g", Monotonic(50.0))
    times.retry_at("g", Monotonic(70.0))
    assert times.deadline() == 50.0
    times.closed("g")
    assert times.deadline() is None


async def test_what_was_due_when_the_monotonic_clock_began_is_due(world: World) -> None:
    world.groups.times.retry_at("g", Monotonic(0.0))
    assert world.groups.times.deadline() == 0.0
