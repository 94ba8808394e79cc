"""When a group that nobody is a member of ends, and what that says of its unread messages."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

import pytest

from broker.config import Config
from broker.documents import Delete, Put, SessionDocument, SubscriptionDocument
from broker.errors import QuotaExceeded, StoreCorrupt, StoreUnavailable
from broker.message import Offset
from broker.registry.groups.lingering import UNREAD
from broker.settings.bounds import DAY_S
from tests.support.clock import FakeClock
from tests.support.groups import GROUP, member, numbers, publish
from tests.support.messages import message
from tests.support.world import Disk, Subscriber, World, placed, running, subscription

LINGER_S = 3600


async def unsubscribe(world: World, leaving: Subscriber) -> None:
    session = placed(leaving)
    world.delivery.changes.unsubscribe(
        session, [GROUP], lambda error: world.groups.leave(session, GROUP)
    )
    await world.settled()


async def pass_time(world: World, seconds: float) -> None:
    world.clock.advance(seconds)
    for _ in range(5):
        await world.settled()


async def has_group(world: World) -> bool:
    """Whether it is there, in memory and in the log, which agree."""
    await world.settled()
    stored = await world.disk.get(SessionDocument, (GROUP,)) is not None
    assert stored == (world.sessions.kept.group_count == 1)
    return stored


async def gone(world: World, unread: int) -> bool:
    return not await has_group(world) and world.counters.dropped[UNREAD] == unread


# UNSUBSCRIBE


@pytest.mark.parametrize("expiry_s", [0, 100])
async def test_the_last_to_unsubscribe_ends_the_group(
    world: World, expiry_s: int, caplog: pytest.LogCaptureFixture
) -> None:
    """[MQTT 5, 4.8.2]"""
    one = await member(world, "one", window=2, expiry_s=expiry_s)
    two = await member(world, "two", window=1, expiry_s=expiry_s)
    await publish(world, 1, 10)
    await unsubscribe(world, one)
    assert await has_group(world)
    await unsubscribe(world, two)
    assert await gone(world, unread=7)
    assert f"group {GROUP} ended with 7 unread messages" in caplog.text
    await publish(world, 11, 11)
    new = await member(world, "new")
    await publish(world, 12, 12)
    assert numbers(new) == [12]
    assert len(numbers(one, two)) == 3


async def test_a_group_that_has_sent_everything_ends_without_a_word(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    one = await member(world, "one")
    await publish(world, 1, 3)
    await world.publish(message("x", "other"))
    await one.acknowledge()
    await unsubscribe(world, one)
    assert await gone(world, unread=0)
    assert "unread" not in caplog.text


async def test_who_has_unsubscribed_keeps_what_it_was_sent(world: World) -> None:
    """[MQTT-3.10.4-3]"""
    one = await member(world, "one", expiry_s=100)
    await publish(world, 1, 3)
    await unsubscribe(world, one)
    assert await gone(world, unread=0)
    new = await member(world, "new")
    await publish(world, 4, 4)
    first, second, third = one.packet_ids
    one.packet_ids = [second]
    await one.acknowledge()
    assert [numbers(one), numbers(new)] == [[1, 2, 3], [4]]
    one.close()
    await world.settled()
    await one.open("one")
    left = placed(one).in_flight.unfinished()
    assert [(entry.packet_id, entry.offset) for entry in left] == [(first, 1), (third, 3)]
    await new.acknowledge()
    assert await has_group(world)


async def test_what_was_sent_and_is_never_acknowledged_is_counted_when_its_client_is_gone(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    one = await member(world, "one")
    await publish(world, 1, 3)
    await unsubscribe(world, one)
    assert await gone(world, unread=0)
    new = await member(world, "new")
    await publish(world, 4, 4)
    one.packet_ids = one.packet_ids[:1]
    await one.acknowledge()
    one.close()
    assert world.counters.dropped[UNREAD] == 2
    assert "client 'one' left 2 messages of groups that had ended unread" in caplog.text
    assert numbers(new) == [4]


async def test_an_absent_session_keeps_the_group(world: World) -> None:
    absent = await member(world, "absent", expiry_s=100)
    absent.close()
    one = await member(world, "one", window=1)
    await publish(world, 1, 3)
    await unsubscribe(world, one)
    assert await has_group(world)
    one.close()
    await world.settled()
    back = await member(world, "absent", expiry_s=100)
    await world.settled()
    assert numbers(back) == [1, 2, 3]
    await unsubscribe(world, back)
    assert await gone(world, unread=0)


async def test_another_absent_session_does_not_keep_the_group(world: World) -> None:
    absent = Subscriber(world)
    await absent.open("absent")
    absent.subscribe(subscription("$share/others/jobs/#", client_id="absent"))
    absent.close()
    one = await member(world, "one", window=1)
    await publish(world, 1, 3)
    await unsubscribe(world, one)
    assert await gone(world, unread=2)


async def test_who_joins_while_it_is_looked_whether_the_group_ends_makes_a_new_one(
    world: World,
) -> None:
    await Subscriber(world).open("absent")
    absent = Subscriber(world)
    await absent.open("absent")
    absent.subscribe(subscription("own", client_id="absent"))
    absent.close()
    one = await member(world, "one", window=1)
    await publish(world, 1, 3)
    world.groups.leave(placed(one), GROUP)
    two = await member(world, "two")
    await publish(world, 4, 4)
    assert numbers(two) == [4]
    assert world.counters.dropped[UNREAD] == 2


async def test_whoever_is_no_member_and_unsubscribes_ends_the_group_too(world: World) -> None:
    """As a line client does that has the session of one."""
    (await member(world, "one", expiry_s=100)).close()
    await publish(world, 1, 2)
    other = Subscriber(world)
    await other.open("one")
    await unsubscribe(world, other)
    assert await gone(world, unread=2)


async def test_unsubscribed_is_answered_when_the_end_of_the_group_is_stored(world: World) -> None:
    one = await member(world, "one")
    await world.settled()
    answered = asyncio.Event()
    world.disk.full = True
    world.groups.leave(placed(one), GROUP, left=answered.set)
    for _ in range(20):
        await asyncio.sleep(0)
    assert not answered.is_set()
    world.disk.full = False
    await world.flushed()
    assert answered.is_set()
    assert not await has_group(world)


# The last session ends


async def test_an_empty_group_lingers_so_that_its_workers_can_restart(world: World) -> None:
    one = await member(world, "one")
    await publish(world, 1, 2)
    await one.acknowledge()
    one.close()
    await pass_time(world, LINGER_S - 1)
    again = await member(world, "again")
    await world.publish(message("x", "other"))
    again.close()
    await pass_time(world, LINGER_S - 1)
    assert await has_group(world)
    await pass_time(world, 2)
    assert await gone(world, unread=0)


async def test_a_group_with_unread_messages_lingers_as_long_as_a_session(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    one = await member(world, "one", window=1)
    await publish(world, 1, 2)
    one.close()
    await publish(world, 3, 4)
    await pass_time(world, 30 * DAY_S - 1)
    assert await has_group(world)
    await pass_time(world, 2)
    assert await gone(world, unread=4)
    assert f"group {GROUP} ended with 4 unread messages" in caplog.text


async def test_messages_that_come_while_the_group_is_empty_are_waited_for(world: World) -> None:
    (await member(world, "one")).close()
    await pass_time(world, LINGER_S / 2)
    await publish(world, 1, 1)
    await pass_time(world, LINGER_S)
    late = await member(world, "late")
    await world.settled()
    assert numbers(late) == [1]


async def test_0_ends_the_group_with_the_last_session() -> None:
    async with running(Disk(), Config(group_linger_s=0)) as world:
        one = await member(world, "one", window=1)
        absent = await member(world, "absent", expiry_s=100)
        await publish(world, 1, 3)
        absent.close()
        one.close()
        await world.settled()
        assert await has_group(world)
        await pass_time(world, 101)
        assert await gone(world, unread=3)


@pytest.mark.parametrize("how", ["expires", "clean start", "leaves for good", "stays"])
async def test_an_absent_session_holds_the_group_until_it_ends(world: World, how: str) -> None:
    """[MQTT 5, 4.8.2]"""
    (await member(world, "absent", expiry_s=10_000)).close()
    one = await member(world, "one")
    await publish(world, 1, 1)
    await one.acknowledge()
    one.close()
    await pass_time(world, 9_000)
    assert await has_group(world)
    if how == "clean start":
        await Subscriber(world).open("absent", clean_start=True)
    elif how == "leaves for good":
        back = await member(world, "absent", expiry_s=10_000)
        placed(back).set_expiry(0)
        back.close()
    else:
        await pass_time(world, 1_001 if how == "expires" else 900)
    await pass_time(world, LINGER_S - 10)
    assert await has_group(world)
    await pass_time(world, 20)
    assert await has_group(world) == (how == "stays")


async def test_a_subscription_that_is_being_stored_holds_the_group(world: World) -> None:
    one = await member(world, "one")
    world.disk.may_commit.clear()
    two = asyncio.create_task(member(world, "two", expiry_s=10_000))
    one.close()
    await asyncio.sleep(0)
    world.disk.may_commit.set()
    (await two).close()
    await pass_time(world, 2 * LINGER_S)
    assert await has_group(world)


# Over the end of the broker


@pytest.mark.parametrize("down_s", [0, 400 * DAY_S, -400 * DAY_S])
async def test_time_counts_while_the_broker_serves(down_s: int) -> None:
    disk, clock = Disk(), FakeClock()
    async with running(disk, clock=clock) as world:
        (await member(world, "one")).close()
        await pass_time(world, LINGER_S / 2)
        await world.publish(message("x", "other"))  # With it, the time is noted.
        await world.settled()
    clock = FakeClock(wall_s=1_000_000_000 + LINGER_S // 2 + down_s, monotonic_s=77)
    async with running(disk, clock=clock) as world:
        await pass_time(world, LINGER_S / 2 - 10)
        assert await has_group(world)
        await pass_time(world, 20)
        assert await gone(world, unread=0)


async def test_a_group_that_was_open_at_a_crash_lingers_from_the_next_start_on() -> None:
    disk = Disk()
    async with running(disk) as world:
        await member(world, "one")
        await publish(world, 1, 2)
    async with running(disk) as world:
        await pass_time(world, LINGER_S + 10)
        back = await member(world, "one")
        await world.settled()
        assert numbers(back) == [1, 2]
        await back.acknowledge()
    async with running(disk) as world:
        await pass_time(world, LINGER_S - 10)
        assert await has_group(world)
        await pass_time(world, 20)
        assert await gone(world, unread=0)


async def test_a_group_whose_subscriber_ended_with_a_crash_is_found_at_the_start() -> None:
    disk = Disk()
    async with running(disk) as world:
        (await member(world, "absent", expiry_s=10_000)).close()
        await pass_time(world, LINGER_S + 10)
        assert await has_group(world)
    await disk.append((), [Delete(SessionDocument, ("absent",))])
    async with running(disk) as world:
        await pass_time(world, LINGER_S + 10)
        assert await gone(world, unread=0)


async def test_a_group_of_an_older_program_ends_when_that_said_if_nobody_is_subscribed() -> None:
    disk = Disk()
    await disk.open()
    for name in (GROUP, "$share/others/t"):
        await disk.append((), [Put(SessionDocument(name, 100, 1, None))])
    await disk.append(
        (),
        [
            Put(SessionDocument("sub1", 10_000, 1, None)),
            Put(subscription("$share/others/t")),
        ],
    )
    async with running(disk) as world:
        await pass_time(world, 110)
        assert world.sessions.kept.group_count == 1
        await pass_time(world, 9_000)
        assert await disk.get(SessionDocument, ("$share/others/t",)) is not None


# The disk


async def test_a_full_disk_puts_the_end_off(world: World) -> None:
    (await member(world, "one")).close()
    await pass_time(world, LINGER_S - 1)
    world.disk.full = True
    world.clock.advance(2)
    for _ in range(50):
        await asyncio.sleep(0)
    assert await world.disk.get(SessionDocument, (GROUP,)) is not None
    world.disk.full = False
    await pass_time(world, 10)
    assert await gone(world, unread=0)


async def test_a_disk_that_cannot_be_read_for_a_moment_puts_the_end_off(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await member(world, "one", window=1)
    await publish(world, 1, 3)
    one.close()
    await pass_time(world, 30 * DAY_S - 1)
    left = dict.fromkeys(("without_subscriber", "count", "scan_together"), 2)
    calls = {call: getattr(world.disk, call) for call in left}

    async def unsteady(call: str, *args: object, **kwargs: object) -> object:
        if left[call]:
            left[call] -= 1
            raise StoreUnavailable("not now")
        return await calls[call](*args, **kwargs)

    for call in calls:
        monkeypatch.setattr(world.disk, call, partial(unsteady, call))
    for _ in range(20):
        await pass_time(world, 1)
    assert not any(left.values())
    assert await gone(world, unread=3)


async def test_a_group_whose_messages_are_damaged_ends_and_says_so(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    one = await member(world, "one", window=1)
    await publish(world, 1, 3)
    one.close()
    await world.settled()

    async def damaged(*args: object, **kwargs: object) -> object:
        raise StoreCorrupt("damaged")

    monkeypatch.setattr(world.disk, "count", damaged)
    await pass_time(world, 31 * DAY_S)
    assert not await has_group(world)
    assert f"group {GROUP}: unread messages not counted: damaged" in caplog.text


async def test_what_takes_too_long_to_count_is_at_least_so_much(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    one = await member(world, "one", window=1)
    await publish(world, 1, 3)

    async def so_far(
        filters: Sequence[str], start: Offset, end: Offset, *, looks_max: int
    ) -> tuple[int, Offset]:
        assert filters == ["jobs/#"]
        return 1, end

    monkeypatch.setattr(world.disk, "count", so_far)
    await unsubscribe(world, one)
    assert await gone(world, unread=1)
    assert "ended with at least 1 unread message: " in caplog.text


# Many


async def test_who_makes_many_groups_and_leaves_uses_up_their_number_for_an_hour() -> None:
    async with running(Disk(), Config(groups_max=3)) as world:
        greedy = Subscriber(world)
        await greedy.open("greedy", expiry_s=0)
        for n in range(3):
            name = f"$share/g{n}/t"
            document = subscription(name, client_id="greedy")
            await world.groups.join(placed(greedy), document, greedy)
            world.delivery.subscribe(placed(greedy), document)
        world.groups.leave(placed(greedy), "$share/g2/t")
        await member(world, "one")
        greedy.close()
        await world.settled()
        assert world.sessions.kept.group_count == 3
        await pass_time(world, LINGER_S + 1)
        assert world.sessions.kept.group_count == 1


async def make_groups(world: World, client_id: str, *names: str) -> None:
    """A client does, gets nothing of the message that it publishes to each, and leaves."""
    guest = Subscriber(world, limit=0)
    await guest.open(client_id, expiry_s=0)
    for name in names:
        document = subscription(f"$share/guests/{name}", client_id=client_id)
        await world.groups.join(placed(guest), document, guest)
        world.delivery.subscribe(placed(guest), document)
        await world.publish(message("1", name))
    guest.close()
    await world.settled()


@pytest.mark.parametrize("restarted", [False, True])
async def test_a_new_group_takes_the_place_of_one_that_was_made_in_passing(
    restarted: bool, caplog: pytest.LogCaptureFixture
) -> None:
    config, clock, disk = Config(groups_max=3), FakeClock(), Disk()
    async with running(disk, config, clock) as world:
        workers = await member(world, "worker")
        clock.advance(100)
        await publish(world, 1, 1)
        workers.close()
        await make_groups(world, "guest", "a", "b")
        await pass_time(world, LINGER_S + 1)
        assert world.sessions.kept.group_count == 3, "each has unread messages"
        if not restarted:
            for name in "cdef":
                await make_groups(world, name, name)
            workers = await member(world, "worker")
            await world.settled()
            assert numbers(workers) == [1]
            dropped = world.counters.dropped[UNREAD]
            assert dropped == caplog.text.count("ended with 1 unread message:") == 4
    if restarted:
        async with running(disk, config, clock) as world:
            for name in "cdef":
                await make_groups(world, name, name)
            workers = await member(world, "worker")
            await world.settled()
            assert numbers(workers) == [1]
            assert world.sessions.kept.group_count == 3
    assert "group $share/guests/a makes room: there are groups_max, 3" in caplog.text


async def test_groups_that_somebody_is_subscribed_to_make_no_room(world: World) -> None:
    async with running(Disk(), Config(groups_max=2)) as world:
        absent = await member(world, "absent", expiry_s=DAY_S)
        absent.close()
        here = Subscriber(world)
        await here.open("here")
        await world.groups.join(placed(here), subscription("$share/a/t"), here)
        with pytest.raises(QuotaExceeded):
            await world.groups.join(placed(here), subscription("$share/b/t"), here)
        assert world.sessions.kept.group_count == 2


async def test_of_many_that_end_at_once_some_are_named(caplog: pytest.LogCaptureFixture) -> None:
    async with running(Disk(), Config(inflight_max=1)) as world:
        one = Subscriber(world, limit=0)
        await one.open("one", expiry_s=0)
        names = [f"$share/g{n}/t" for n in range(30)]
        for name in names:
            document = subscription(name, client_id="one")
            await world.groups.join(placed(one), document, one)
            world.delivery.subscribe(placed(one), document)
        await world.publish(message("1", "t"), message("2", "t"))
        world.groups.leave(placed(one), *names)
        await world.settled()
        assert world.counters.dropped[UNREAD] == 60
        assert world.sessions.kept.group_count == 0
    assert caplog.text.count("ended with 2 unread messages") == 10
    assert "20 more groups ended, with 40 unread messages" in caplog.text
    assert await world.disk.scan(SubscriptionDocument) == []
