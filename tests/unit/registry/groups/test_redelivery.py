"""What a group does about messages that a member refused, held too long or died of."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from broker.config import Config
from broker.documents import CursorDocument
from broker.documents.queues import DeadLetterDocument, GroupDocument, RetryDocument
from broker.message import Offset
from tests.support.groups import GROUP, member, numbers, publish
from tests.support.messages import message
from tests.support.world import Disk, Subscriber, World, payloads, placed, running


def created(world: World, *, attempts: int = 3, backoff_ms: int = 1000, lease_s: int = 60) -> None:
    """The group is one that was made by a command."""
    world.groups.created[GROUP] = GroupDocument(
        GROUP, attempts, backoff_ms, 8 * backoff_ms, lease_s * 1000, 1
    )


async def refuse(world: World, by: Subscriber, packet_ids: Sequence[int], why: str = "no") -> None:
    """As `Sending` does."""
    session = placed(by)
    leases = session.in_flight.leases.refuse(packet_ids)
    session.in_flight.puback(packet_ids)
    by.packet_ids = [p for p in by.packet_ids if p not in packet_ids]
    world.groups.refusals.add(session, leases, why)
    await world.settled()
    by.wake()
    await world.settled()


async def wait(world: World, seconds: float) -> None:
    """Time passes, and what is due is done."""
    await world.settled()
    for _ in range(4):
        world.clock.advance(seconds / 4)
        await world.settled()


async def stop(world: World, *members: Subscriber) -> None:
    """The broker stops."""
    world.sessions.absent_groups.stopping = True
    for each in members:
        each.close()
    await world.settled()


async def dead(world: World) -> list[DeadLetterDocument]:
    await world.settled()
    return await world.disk.scan(DeadLetterDocument)


def attempts(of: Subscriber) -> list[tuple[bytes, int]]:
    return [(m.payload, grant.lease.attempt if grant.lease else 0) for m, grant in of.got]


async def test_a_refusal_is_final_in_a_group_that_no_command_made(world: World) -> None:
    """[MQTT-4.8.2-6]"""
    one, two = await member(world, "one", window=1), await member(world, "two", window=1)
    await publish(world, 1, 1)
    await refuse(world, one, one.packet_ids, "exit code 3")
    await wait(world, 600)
    assert (numbers(one), numbers(two)) == ([1], [])
    [letter] = await dead(world)
    assert (letter.group_name, letter.offset, letter.attempts) == (GROUP, 1, 1)
    assert (letter.reason, letter.worker) == ("exit code 3", "one")
    assert world.counters.dropped == {}


async def test_a_refused_message_is_tried_again_later_and_the_rest_goes_on(world: World) -> None:
    created(world)
    one = await member(world, "one", window=1)
    await publish(world, 1, 3)
    await refuse(world, one, one.packet_ids)
    assert payloads(one.got) == [b"1", b"2"]
    await one.acknowledge()
    await one.acknowledge()
    assert payloads(one.got) == [b"1", b"2", b"3"]
    await wait(world, 0.8)
    assert len(one.got) == 3
    await wait(world, 0.4)
    assert attempts(one)[-1] == (b"1", 2)
    await one.acknowledge()
    assert await world.disk.scan(RetryDocument) == []
    assert await dead(world) == []


async def test_the_pauses_double_and_after_the_last_attempt_it_is_a_dead_letter(
    world: World,
) -> None:
    created(world, attempts=3)
    one = await member(world, "one")
    await publish(world, 1, 1)
    for pause_s in (1, 2):
        await refuse(world, one, one.packet_ids)
        before = len(one.got)
        await wait(world, pause_s - 0.1)
        assert len(one.got) == before
        await wait(world, 0.2)
        assert len(one.got) == before + 1
    await refuse(world, one, one.packet_ids, "the last")
    await wait(world, 1000)
    assert attempts(one) == [(b"1", 1), (b"1", 2), (b"1", 3)]
    [letter] = await dead(world)
    assert (letter.attempts, letter.reason) == (3, "the last")
    assert await world.disk.scan(RetryDocument) == []
    assert world.counters.groups.attempts_failed == 3


async def test_who_dies_fails_with_the_message_it_had_longest_and_returns_the_others(
    world: World,
) -> None:
    """A worker that takes messages in advance dies of the first; the others are innocent."""
    dying = await member(world, "dying")
    await publish(world, 1, 3)
    staying = await member(world, "staying")
    session, dying.session = placed(dying), None
    world.groups.detach(session, lost=True)
    world.sessions.close(session, dying, world.clock.now())
    await world.settled()
    assert attempts(staying) == [(b"2", 1), (b"3", 1)]
    await wait(world, 1.2)
    assert attempts(staying)[2:] == [(b"1", 2)]


async def test_attempts_are_counted_across_a_crash() -> None:
    disk = Disk()
    async with running(disk) as world:
        created(world, attempts=2)
        one = await member(world, "one")
        await publish(world, 1, 2)
        await refuse(world, one, one.packet_ids[:1])
        stored = await disk.get(CursorDocument, (GROUP,))
        assert stored is not None
        assert stored.offset == 1, "the cursor does not wait for what is tried again"
    async with running(disk) as world:
        created(world, attempts=2)
        two = await member(world, "two")
        await wait(world, 1.2)
        assert sorted(attempts(two)) == [(b"1", 2), (b"2", 1)]
        await refuse(world, two, [two.packet_ids[payloads(two.got).index(b"1")]])
        [letter] = await dead(world)
        assert letter.attempts == 2


async def test_a_lease_that_lasts_too_long_goes_to_another_and_never_to_who_has_it(
    world: World,
) -> None:
    created(world, lease_s=60)
    slow = await member(world, "slow", window=2)
    await publish(world, 1, 1)
    await wait(world, 61)
    await wait(world, 5)
    assert numbers(slow) == [1]
    window = placed(slow).in_flight
    assert window.room() == 1, "it keeps its place in the Receive Maximum"
    other = await member(world, "other")
    await world.settled()
    assert attempts(other) == [(b"1", 2)]
    await publish(world, 2, 3)
    assert 2 in numbers(slow) + numbers(other)
    await other.acknowledge()
    assert await world.disk.scan(RetryDocument) == []
    await slow.acknowledge()
    assert window.room() == 2


async def test_who_acknowledges_late_has_done_it(world: World) -> None:
    """While it waits to be tried again, and while another has it."""
    created(world, lease_s=60, attempts=9)
    slow = await member(world, "slow", window=1)
    await publish(world, 1, 1)
    await wait(world, 60.5)
    assert len(await world.disk.scan(RetryDocument)) == 1
    await slow.acknowledge()
    assert await world.disk.scan(RetryDocument) == []
    await publish(world, 2, 2)
    await wait(world, 64)
    await wait(world, 2)
    other = await member(world, "other")
    await world.settled()
    assert numbers(other) == [2]
    await slow.acknowledge()
    assert await world.disk.scan(RetryDocument) == []
    await refuse(world, other, other.packet_ids)
    await wait(world, 100)
    assert (numbers(slow, other), await dead(world)) == ([1, 2, 2], [])


async def test_only_the_message_at_which_a_member_hangs_counts(world: World) -> None:
    created(world, lease_s=60)
    hanging = await member(world, "hanging", window=5)
    await publish(world, 1, 5)
    await wait(world, 61)
    other = await member(world, "other")
    await wait(world, 2)
    assert sorted(attempts(other)) == [(b"1", 2), *[(b"%d" % n, 1) for n in (2, 3, 4, 5)]]
    hanging.close()


async def test_a_lease_is_held_by_a_clock_that_nobody_can_set(world: World) -> None:
    one = await member(world, "one")
    await publish(world, 1, 1)
    two = await member(world, "two")
    world.clock.set_wall(2_000_000_000)
    await world.settled()
    assert (len(one.got), two.got) == (1, [])


async def test_what_a_worker_had_when_the_broker_stopped_comes_back_to_it_first() -> None:
    """It may be done: so nobody does it twice."""
    disk = Disk()
    async with running(disk) as world:
        one = await member(world, "one", window=1)
        await publish(world, 1, 3)
        await stop(world, one)
        assert [r.holder for r in await disk.scan(RetryDocument)] == ["one"]
    async with running(disk) as world:
        two = await member(world, "two", window=9)
        one = await member(world, "one", window=1)
        await world.settled()
        assert (numbers(one), numbers(two)) == ([1], [2, 3])
        assert attempts(one) == [(b"1", 1)]
        await one.acknowledge()
        assert await disk.scan(RetryDocument) == []


async def test_what_nobody_comes_back_for_goes_to_another() -> None:
    disk = Disk()
    async with running(disk) as world:
        one = await member(world, "one")
        await publish(world, 1, 1)
        await stop(world, one)
    async with running(disk) as world:
        two = await member(world, "two")
        await wait(world, 29)
        assert two.got == []
        await wait(world, 2)
        assert numbers(two) == [1]


class DoesNotRead(Subscriber):
    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.takes_more, self.limit = False, 0


async def test_what_a_worker_had_is_for_others_when_it_came_and_left_again() -> None:
    disk = Disk()
    async with running(disk) as world:
        one = await member(world, "one")
        await publish(world, 1, 3)
        await stop(world, one)
    async with running(disk) as world:
        two = await member(world, "two")
        one = await member(world, "one", kind=DoesNotRead)
        await world.settled()
        one.close()
        await wait(world, 29)
        assert two.got == []
        await wait(world, 2)
        assert numbers(two) == [1, 2, 3]


async def test_what_is_held_for_workers_that_left_again_holds_up_nothing_that_is_due() -> None:
    """However many they are."""
    disk = Disk()
    async with running(disk) as world:
        created(world)
        workers = [await member(world, f"w{n}", window=16) for n in range(6)]
        await publish(world, 1, 96)
        await stop(world, *workers)
    async with running(disk) as world:
        created(world)
        staying = await member(world, "staying")
        workers = [await member(world, f"w{n}", kind=DoesNotRead) for n in range(6)]
        await world.settled()
        for each in workers:
            each.close()
        await publish(world, 97, 97)
        await refuse(world, staying, staying.packet_ids)
        await wait(world, 2)
        assert attempts(staying) == [(b"97", 1), (b"97", 2)]
        await wait(world, 31)
        assert numbers(staying) == [*range(1, 97), 97, 97]


async def test_what_expired_while_the_broker_was_down_keeps_its_worker_from_nothing() -> None:
    disk = Disk()
    async with running(disk) as world:
        one = await member(world, "one", window=2)
        expires = world.log.time.aged_us() + 500_000
        await world.publish(message("1", "jobs/a", expires_at_us=expires), message("2", "jobs/a"))
        await stop(world, one)
    async with running(disk) as world:
        world.clock.advance(1)
        one = await member(world, "one", window=2)
        await publish(world, 3, 3)
        assert numbers(one) == [2, 3]
        await wait(world, 31)
        assert world.counters.dropped["expired"] == 1
        assert [r.offset for r in await disk.scan(RetryDocument)] == [2]


async def test_a_worker_that_had_large_messages_gets_others_before_the_last_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """P7: the first part is for it at once, the rest when the hold is over."""
    monkeypatch.setattr("broker.registry.groups.redelivery.HELD_BYTES_MAX", 150)
    disk = Disk()
    async with running(disk) as world:
        one = await member(world, "one")
        await world.publish(*[message(str(n).zfill(99), "jobs/a") for n in (1, 2, 3)])
        await stop(world, one)
    async with running(disk) as world:
        one = await member(world, "one")
        await publish(world, 4, 4)
        assert numbers(one) == [1, 2, 4]
        await wait(world, 31)
        assert numbers(one) == [1, 2, 3, 4]


async def test_what_everybody_hangs_at_holds_up_no_other_retry(world: World) -> None:
    """And goes to the next that comes, or back to who refuses it at last."""
    created(world, lease_s=60, attempts=9)
    hanging = await member(world, "hanging", window=101)
    await publish(world, 1, 100)
    await wait(world, 61)
    await publish(world, 101, 101)
    await refuse(world, hanging, hanging.packet_ids[-1:])
    await wait(world, 2)
    assert attempts(hanging)[100:] == [(b"101", 1), (b"101", 2)]
    await refuse(world, hanging, hanging.packet_ids[5:6])
    await wait(world, 1)
    assert attempts(hanging)[102:] == [(b"6", 1)]
    other = await member(world, "other")
    await wait(world, 1)
    assert numbers(other) == [n for n in range(1, 101) if n != 6]


async def test_what_fits_no_member_is_a_dead_letter(world: World) -> None:
    small = await member(world, "small")
    small.payload_bytes_max = 10
    await world.publish(message(bytes(11), "jobs/a"), message("2", "jobs/a"))
    assert payloads(small.got) == [b"2"]
    [letter] = await dead(world)
    assert "too large" in letter.reason


async def test_what_expires_while_it_waits_is_dropped(world: World) -> None:
    created(world)
    one = await member(world, "one")
    expires = world.log.time.aged_us() + 500_000
    await world.publish(message("1", "jobs/a", expires_at_us=expires))
    await refuse(world, one, one.packet_ids)
    await wait(world, 2)
    assert len(one.got) == 1
    assert world.counters.dropped == {"expired": 1}
    assert await world.disk.scan(RetryDocument) == []


async def test_a_full_disk_loses_no_attempt(world: World) -> None:
    """The message leaves the window in the same commit that stores its row."""
    created(world)
    one = await member(world, "one")
    await publish(world, 1, 1)
    world.disk.full = True
    session = placed(one)
    leases = session.in_flight.leases.refuse(one.packet_ids)
    session.in_flight.puback(one.packet_ids)
    world.groups.refusals.add(session, leases, "no")
    for _ in range(20):
        await asyncio.sleep(0)
    assert await world.disk.scan(RetryDocument) == []
    world.disk.full = False
    await wait(world, 4)
    assert attempts(one)[-1] == (b"1", 2)


async def test_many_poison_messages_do_not_hold_up_the_others() -> None:
    count = 600
    async with running(Disk(), Config(inflight_max=100)) as world:
        created(world, attempts=2)
        one = await member(world, "one", window=100)
        await publish(world, 1, count)
        refused = 0
        while refused < count:
            refused += len(one.packet_ids)
            await refuse(world, one, one.packet_ids)
        await publish(world, count + 1, count + 1)
        assert one.got[-1][0].payload == b"%d" % (count + 1)
        await one.acknowledge()
        for _ in range(3 * count // 64):
            world.clock.advance(0.1)
            await world.settled()
            if one.packet_ids:
                await refuse(world, one, one.packet_ids)
        assert len(await dead(world)) == count
        stored = await world.disk.get(CursorDocument, (GROUP,))
        assert stored is not None
        assert stored.offset > Offset(count)


async def test_a_refusal_counts_though_its_member_leaves_in_the_same_turn(world: World) -> None:
    """And the group with it. [MQTT-4.8.2-6]"""
    one = await member(world, "one")
    await publish(world, 1, 1)
    session = placed(one)
    leases = session.in_flight.leases.refuse(one.packet_ids)
    session.in_flight.puback(one.packet_ids)
    world.groups.refusals.add(session, leases, "no")
    one.close()
    assert [letter.reason for letter in await dead(world)] == ["no"]
    two = await member(world, "two")
    await world.settled()
    assert two.got == []


async def test_who_has_given_back_what_it_held_too_long_may_have_it_again(world: World) -> None:
    """When it refuses it, too late: another attempt failed at it before."""
    created(world, lease_s=60, attempts=9)
    slow = await member(world, "slow", window=2)
    await publish(world, 1, 1)
    await wait(world, 61)
    await wait(world, 5)
    assert attempts(slow) == [(b"1", 1)]
    await refuse(world, slow, slow.packet_ids)
    await wait(world, 1)
    assert attempts(slow) == [(b"1", 1), (b"1", 2)]


async def seek_back(world: World, member: Subscriber) -> None:
    """What the group was sent goes out again, beside what it is to try again."""
    group = world.groups.get(GROUP)
    assert group is not None
    assert group.sender is not None
    world.delivery.seek(group.sender.session, Offset(0))
    await world.settled()
    member.wake()
    await world.settled()


@pytest.mark.parametrize("again_after_s", [0.5, 2])
async def test_of_a_message_that_is_to_be_tried_twice_nothing_stays_behind(
    world: World, again_after_s: float
) -> None:
    """As an operator has let the group go back: it is refused, and waits, once more."""
    created(world, attempts=10)
    one = await member(world, "one", window=100)
    await publish(world, 1, 5)
    await refuse(world, one, one.packet_ids)
    await wait(world, again_after_s)
    await seek_back(world, one)
    await refuse(world, one, one.packet_ids)
    assert len(await world.disk.scan(RetryDocument)) > 5
    two = await member(world, "two", window=3)
    for _ in range(20):
        await wait(world, 9)
        for each in (one, two):
            await each.acknowledge()
        await world.settled()
    assert await world.disk.scan(RetryDocument) == []
    assert await dead(world) == []


async def test_of_many_that_wait_in_the_store_too() -> None:
    """While some that were read from there are members', others are read."""
    disk = Disk()
    async with running(disk) as world:
        created(world, attempts=10)
        one = await member(world, "one", window=100)
        await publish(world, 1, 10)
        await refuse(world, one, one.packet_ids)
        await wait(world, 0.5)
        await seek_back(world, one)
        await refuse(world, one, one.packet_ids)
        assert len(await world.disk.scan(RetryDocument)) == 20
    async with running(disk) as world:
        created(world, attempts=10)
        one = await member(world, "one", window=3)
        for _ in range(20):
            await wait(world, 9)
            await one.acknowledge()
            await world.settled()
        assert await world.disk.scan(RetryDocument) == []
