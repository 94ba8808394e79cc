"""Shared Subscriptions: one member a message, and none is lost with a member."""

from __future__ import annotations

import asyncio

import pytest

from broker.config import Config
from broker.documents import CursorDocument
from broker.errors import QuotaExceeded
from broker.session.cursor import listed
from tests.support.groups import GROUP, member, numbers, publish
from tests.support.messages import message
from tests.support.world import Disk, Subscriber, World, placed, running, subscription


def unsubscribe(world: World, leaving: Subscriber) -> None:
    assert leaving.session is not None
    world.groups.leave(leaving.session, GROUP)
    world.delivery.unsubscribe(leaving.session, GROUP)


async def test_what_was_leased_is_not_sent_again_to_who_comes_back(world: World) -> None:
    """It went to another: the session must not keep it as well."""
    leaving, staying = await member(world, "leaving", expiry_s=100), await member(world, "staying")
    await publish(world, 1, 2)
    leaving.close()
    await world.settled()
    assert numbers(staying) == [1, 2]
    back = await member(world, "leaving", expiry_s=100)
    assert back.session is not None
    assert back.session.in_flight.unfinished() == []
    assert back.got == []


async def test_the_group_keeps_its_place_while_nobody_is_there(world: World) -> None:
    first = await member(world, "first")
    await publish(world, 1, 2)
    await first.acknowledge()
    first.close()
    await publish(world, 3, 4)
    second = await member(world, "second")
    await world.settled()
    assert numbers(second) == [3, 4]


async def test_a_crash_loses_no_lease() -> None:
    disk = Disk()
    async with running(disk) as world:
        one = await member(world, "one", expiry_s=100)
        await publish(world, 1, 4)
        assert one.session is not None
        one.session.in_flight.puback(one.packet_ids[1:2])
        world.groups.settle(one.session)
        world.log.changed(one.session)
        await world.flushed()
        stored = await disk.get(CursorDocument, (GROUP,))
        assert stored is not None
        assert stored.offset == 0
        of_member = await disk.get(CursorDocument, ("one",))
        assert of_member is not None
        assert listed(of_member) == []
    async with running(disk) as world:
        two = await member(world, "two")
        await world.settled()
        assert numbers(two) == [1, 3, 4]


async def test_a_crash_before_anything_was_acknowledged_loses_nothing() -> None:
    """The place of the group is stored when it is made."""
    disk = Disk()
    async with running(disk) as world:
        await member(world, "one")
        await publish(world, 1, 3)
    async with running(disk) as world:
        two = await member(world, "two")
        await world.settled()
        assert numbers(two) == [1, 2, 3]


async def test_a_crash_does_not_repeat_all_of_qos_0() -> None:
    disk = Disk()
    async with running(disk) as world:
        one = await member(world, "one")
        await publish(world, 1, 3, qos=0)
        assert numbers(one) == [1, 2, 3]
        await world.flushed()
    async with running(disk) as world:
        two = await member(world, "two")
        await world.settled()
        assert two.got == []


async def test_a_crash_repeats_no_more_than_a_window_for_each_member() -> None:
    """P4, also for members whose sessions end with them: who has nothing to store does not wait
    for the disk."""
    async with running(Disk(), Config(inflight_max=10)) as world:
        members = [await member(world, "one", window=10), await member(world, "two", window=10)]
        for each in members:
            each.limit = 0
        await publish(world, 1, 50)
        world.disk.may_commit.clear()
        for each in members:
            each.limit = 1 << 20
            each.wake()
        for _ in range(10):
            for each in members:
                assert each.session is not None
                each.session.in_flight.puback(each.packet_ids)
                each.packet_ids = []
                world.groups.settle(each.session)
                each.wake()
        assert len(numbers(*members)) == 20
        world.disk.may_commit.set()
        for _ in range(5):
            for each in members:
                await each.acknowledge()
        assert numbers(*members) == list(range(1, 51))


async def test_qos2_stays_with_the_member_it_was_sent_to(world: World) -> None:
    """[MQTT-4.8.2-4, MQTT-4.8.2-5]"""
    leaving = await member(world, "leaving", expiry_s=100, qos=2)
    await publish(world, 1, 1, qos=2)
    await world.flushed()
    leaving.close()
    other = await member(world, "other", qos=2)
    await world.settled()
    assert other.got == []
    back = await member(world, "leaving", expiry_s=100, qos=2)
    assert back.session is not None
    assert len(back.session.in_flight.unfinished()) == 1


async def test_who_unsubscribes_finishes_what_it_has_and_gets_no_more(world: World) -> None:
    """[MQTT-3.10.4-2, MQTT-3.10.4-3]"""
    leaving, staying = await member(world, "leaving", window=1), await member(world, "staying")
    await publish(world, 1, 1)
    unsubscribe(world, leaving)
    await leaving.acknowledge()
    await publish(world, 2, 5)
    assert numbers(leaving) == [1]
    assert numbers(staying) == [2, 3, 4, 5]


async def test_who_unsubscribes_returns_what_was_not_sent(world: World) -> None:
    """[MQTT-3.10.4-2]"""
    leaving, staying = await member(world, "leaving"), await member(world, "staying")
    leaving.limit = 0
    await publish(world, 1, 4)
    unsubscribe(world, leaving)
    await world.settled()
    assert numbers(staying) == [1, 2, 3, 4]


async def test_who_unsubscribes_and_is_gone_returns_what_it_has(world: World) -> None:
    leaving, staying = await member(world, "leaving", window=1), await member(world, "staying")
    await publish(world, 1, 1)
    unsubscribe(world, leaving)
    await publish(world, 2, 2)
    leaving.close()
    await world.settled()
    assert numbers(leaving) == [1]
    assert numbers(staying) == [1, 2]


async def test_the_last_to_unsubscribe_finishes_what_it_has_too(world: World) -> None:
    """Nobody else gets it meanwhile, nor when it is acknowledged."""
    leaving = await member(world, "leaving")
    await publish(world, 1, 2)
    unsubscribe(world, leaving)
    other = await member(world, "other")
    await publish(world, 3, 3)
    assert numbers(other) == [3]
    await other.acknowledge()
    other.close()
    await leaving.acknowledge()
    assert world.groups.open_count == 0
    await publish(world, 4, 4)
    last = await member(world, "last")
    await world.settled()
    assert numbers(last) == [4]


async def test_who_unsubscribes_need_not_finish_what_is_not_of_the_group(world: World) -> None:
    (await member(world, "absent", expiry_s=100)).close()
    one = await member(world, "one", expiry_s=100)
    one.subscribe(subscription("own", client_id="one"))
    await world.publish(message("x", "own"))
    await publish(world, 1, 1)
    own, leased = one.packet_ids
    unsubscribe(world, one)
    await world.settled()
    assert world.groups.open_count == 1
    one.packet_ids = [leased]
    await one.acknowledge()
    assert world.groups.open_count == 0
    one.packet_ids = [own]
    await one.acknowledge()
    two = await member(world, "two")
    await publish(world, 2, 2)
    assert numbers(two) == [2]


async def test_who_subscribes_again_is_a_member_like_any(world: World) -> None:
    back = await member(world, "back")
    await publish(world, 1, 1)
    unsubscribe(world, back)
    assert back.session is not None
    document = subscription(GROUP, client_id="back")
    await world.groups.join(back.session, document, back)
    await back.acknowledge()
    await publish(world, 2, 2)
    assert numbers(back) == [1, 2]


@pytest.mark.parametrize("crash", [False, True])
async def test_qos_0_that_nobody_sent_waits_for_the_next_member(crash: bool) -> None:
    disk = Disk()
    async with running(disk) as world:
        leaving = await member(world, "leaving", expiry_s=100)
        leaving.limit = 0
        await publish(world, 1, 5, qos=0)
        if not crash:
            leaving.close()
            await publish(world, 6, 7, qos=0)
    async with running(disk) as world:
        next_one = await member(world, "next")
        await world.settled()
        assert numbers(next_one) == list(range(1, 6 if crash else 8))


async def test_a_group_that_could_not_be_opened_can_be_opened_again(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def mistake(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(world.log, "changed", mistake)
        with pytest.raises(ZeroDivisionError):
            await member(world, "one")
    assert world.groups.open_count == 0
    two = await member(world, "two")
    await publish(world, 1, 2)
    assert numbers(two) == [1, 2]
    assert caplog.messages == []


async def test_groups_do_not_use_up_the_sessions_of_clients() -> None:
    """A client whose session ends with its connection can make many that stay."""
    async with running(Disk(), Config(sessions_max=1, groups_max=2)) as world:
        guest = Subscriber(world)
        await guest.open("guest", expiry_s=0)
        for name in ("a", "b"):
            document = subscription(f"$share/{name}/t", client_id="guest")
            await world.groups.join(placed(guest), document, guest)
        document = subscription("$share/c/t", client_id="guest")
        with pytest.raises(QuotaExceeded):
            await world.groups.join(placed(guest), document, guest)
        guest.close()
        await world.settled()
        assert (world.sessions.kept.client_count, world.sessions.kept.group_count) == (0, 2)
        await Subscriber(world).open("durable")
    async with running(world.disk, Config(sessions_max=1, groups_max=2)) as world:
        assert (world.sessions.kept.client_count, world.sessions.kept.group_count) == (1, 2)


@pytest.mark.parametrize("window", [1, 100, 65_535])
async def test_a_member_of_many_groups_gets_the_message_of_each(world: World, window: int) -> None:
    """Each lease makes it send, after which it may have room for the next group's."""
    one = Subscriber(world)
    await one.open("one", receive_maximum=window)
    names = [f"$share/g{n}/t" for n in range(500)]
    for name in names:
        await world.groups.join(placed(one), subscription(name, client_id="one"), one)
    await world.publish(message("1", "t"))
    while len(one.got) < 500:
        assert one.packet_ids, "it gets no more though it has room"
        await one.acknowledge()
    await one.acknowledge()
    assert one.errors == []
    assert {grant.lease.group for _, grant in one.got if grant.lease} == {*names}
    await world.publish(message("2", "t"))
    assert len(one.got) > 500


async def test_who_comes_back_joins_many_groups_in_several_turns(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.registry.groups.groups.JOINED_AT_ONCE_MAX", 2)
    one, other = Subscriber(world), Subscriber(world)
    for subscriber, name in ((one, "one"), (other, "other")):
        await subscriber.open(name)
        for n in range(7):
            document = subscription(f"$share/g{n}/t", client_id=name)
            await world.groups.join(placed(subscriber), document, subscriber)
            subscriber.subscribe(document)
    await world.settled()
    one.close()
    await one.open("one")
    joining = asyncio.create_task(world.groups.attach(placed(one), one))
    joined = []
    while not joining.done():
        await asyncio.sleep(0)
        joined.append(len(world.groups._memberships.get(placed(one), ())))
    assert joined[:3] == [2, 4, 6]
    assert joined[-1] == 7
    world.groups.leave(placed(one), "t")
    world.groups.leave(placed(one), "$share/g3/t")
    await world.publish(*[message(str(n), "t") for n in range(4)])
    assert len(one.got) + len(other.got) == 28
    groups = {grant.lease.group for _, grant in one.got if grant.lease}
    assert groups
    assert "$share/g3/t" not in groups
