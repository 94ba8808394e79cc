"""One group: each message to one member, in turn, and to nobody who has no room for it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from broker.config import Config
from broker.documents import CursorDocument, Put
from broker.errors import StoreCorrupt, StoreError
from broker.message import Lease, Offset, Outgoing
from broker.session.in_flight import InFlightWindow
from tests.support.groups import GROUP, member, numbers, publish
from tests.support.messages import message
from tests.support.world import Disk, Subscriber, World, payloads, placed, running


async def test_each_message_goes_to_one_member_in_turn(world: World) -> None:
    members = [await member(world, f"m{n}") for n in range(3)]
    await publish(world, 1, 9)
    assert numbers(*members) == list(range(1, 10))
    assert [len(m.got) for m in members] == [3, 3, 3]


async def test_a_member_without_room_is_passed_over(world: World) -> None:
    """And gets its share again when it has acknowledged."""
    narrow, wide = await member(world, "narrow", window=2), await member(world, "wide")
    await publish(world, 1, 10)
    assert len(narrow.got) == 2
    assert numbers(narrow, wide) == list(range(1, 11))
    await narrow.acknowledge()
    await publish(world, 11, 12)
    assert len(narrow.got) == 3


async def test_what_finds_no_room_anywhere_waits_for_the_first_that_has(world: World) -> None:
    one, two = await member(world, "one", window=1), await member(world, "two", window=1)
    await publish(world, 1, 5)
    assert numbers(one, two) == [1, 2]
    await two.acknowledge()
    assert numbers(one, two) == [1, 2, 3]


async def test_a_member_that_leaves_returns_what_it_has_and_it_goes_first(world: World) -> None:
    leaving = await member(world, "leaving", expiry_s=100)
    await publish(world, 1, 3)
    staying = await member(world, "staying", window=1)
    await publish(world, 4, 4)
    leaving.close()
    await publish(world, 5, 6)
    for _ in range(6):
        await staying.acknowledge()
    assert payloads(staying.got) == [b"1", b"2", b"3", b"4", b"5", b"6"]


async def test_what_was_sent_to_a_member_that_left_is_counted_when_it_is_sent_again(
    world: World,
) -> None:
    await member(world, "busy", window=1)
    await publish(world, 1, 1)
    leaving = await member(world, "leaving")
    await publish(world, 2, 3)
    leaving.limit = 0
    await publish(world, 4, 6)
    leaving.close()
    await world.settled()
    assert (numbers(leaving), world.counters.redeliveries) == ([2, 3], 0)
    staying = await member(world, "staying")
    await world.settled()
    assert (numbers(staying), world.counters.redeliveries) == ([2, 3, 4, 5, 6], 2)


async def test_who_acknowledges_too_late_what_it_returned_takes_nothing_away(
    world: World,
) -> None:
    """While that waits to be leased again."""
    leaving, staying = (
        await member(world, "leaving", expiry_s=100),
        await member(world, "staying", window=1),
    )
    await publish(world, 1, 4)
    late = leaving.packet_ids
    leaving.close()
    back = await member(world, "leaving", expiry_s=100, window=1)
    assert back.session is not None
    back.session.in_flight.puback(late)
    world.groups.settle(back.session)
    for _ in range(4):
        await back.acknowledge()
        await staying.acknowledge()
    assert numbers(back, staying) == [1, 2, 3, 4]


async def test_qos0_members_have_acknowledged_what_they_took(world: World) -> None:
    fast = await member(world, "fast", qos=0)
    await publish(world, 1, 3)
    await world.flushed()
    fast.close()
    other = await member(world, "other")
    await world.settled()
    assert numbers(fast) == [1, 2, 3]
    assert other.got == []


async def test_qos_0_that_was_not_sent_goes_to_another_when_its_member_leaves(
    world: World,
) -> None:
    leaving, staying = await member(world, "leaving"), await member(world, "staying", qos=0)
    leaving.limit = 0
    await publish(world, 1, 500, qos=0)
    assert len(staying.got) == 400
    leaving.close()
    await world.settled()
    assert numbers(staying) == list(range(1, 501))
    assert world.counters.dropped == {}


@pytest.mark.parametrize("qos", [0, 1])
async def test_a_member_that_takes_nothing_is_handed_no_more(
    qos: int, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P7: bounded in number and in bytes, however small or large the messages are."""
    monkeypatch.setattr("broker.delivery.sender.TAKE_BYTES_MAX", 15_000)
    monkeypatch.setattr("broker.registry.groups.group.WAITING_MAX", 50)
    stuck = await member(world, "stuck", window=1000)
    stuck.limit = 0
    await publish(world, 1, 200, qos=qos)
    assert stuck.session is not None
    assert len(stuck.session.supply.aside) == 50
    stuck.limit = 1 << 20
    stuck.wake()
    await world.settled()
    assert numbers(stuck) == list(range(1, 201))
    stuck.limit = 0
    await world.publish(*[message(bytes(6000), "jobs/a", qos=qos) for _ in range(9)])
    assert len(stuck.session.supply.aside) == 3


async def test_a_member_whose_socket_is_full_returns_what_waits(world: World) -> None:
    stuck, other = await member(world, "stuck"), await member(world, "other", window=2)
    stuck.limit = 0
    await publish(world, 1, 4)
    stuck.takes_more = False
    assert stuck.session is not None
    world.groups.stalled(stuck.session)
    await publish(world, 5, 6)
    assert (numbers(stuck), len(stuck.session.supply.aside)) == ([], 0)
    while len(other.got) < 6:
        await other.acknowledge()
    assert numbers(other) == [1, 2, 3, 4, 5, 6]


async def test_what_is_too_large_for_who_has_room_waits_for_who_takes_it(world: World) -> None:
    """And holds up nobody else, until that is much."""
    small, large = await member(world, "small"), await member(world, "large", window=1)
    small.payload_bytes_max = 10
    await world.publish(*[message(bytes(11), "jobs/a") for _ in range(3)])
    await publish(world, 4, 5)
    assert (len(large.got), numbers(small)) == (1, [4, 5])
    await large.acknowledge()
    assert len(large.got) == 2
    large.close()
    await publish(world, 6, 6)
    assert numbers(small) == [4, 5, 6]
    assert (world.counters.dropped, world.counters.groups.dead_letters) == ({}, 2)


async def test_many_dead_letters_make_room_for_what_follows_once_they_are_stored() -> None:
    """And nothing else has to happen. (P4)"""
    async with running(Disk(), Config(inflight_max=3)) as world:
        small = await member(world, "small")
        small.payload_bytes_max = 10
        await world.publish(
            *[message(bytes(11), "jobs/a") for _ in range(9)], message("1", "jobs/a")
        )
        assert numbers(small) == [1]
        assert world.counters.groups.dead_letters == 9


async def test_what_waits_for_who_takes_it_is_bounded(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P7"""
    monkeypatch.setattr("broker.registry.groups.unplaced.UNPLACED_MAX", 2)
    small, large = await member(world, "small"), await member(world, "large", window=1)
    small.payload_bytes_max = 10
    for _ in range(5):
        await world.publish(message(bytes(11), "jobs/a"))
    await publish(world, 6, 6)
    assert (len(large.got), small.got) == (1, [])
    while len(large.got) < 5:
        await large.acknowledge()
    await world.settled()
    assert numbers(small) == [6]
    large.close()
    small.close()
    last = await member(world, "last")
    await world.settled()
    assert len(last.got) == 2


async def test_what_a_member_is_to_send_is_not_overtaken_by_what_that_makes_room_for(
    world: World,
) -> None:
    class SettlesBeforeItSends(Subscriber):
        """As a client does that does not wait for acknowledgements."""

        def wake(self) -> None:
            session = self.session
            assert session is not None
            while session.supply.aside and self.limit:
                taken = session.supply.take(0, self.limit)
                world.groups.settle(session)
                self.got += taken.outgoing
            world.groups.drained(session)

    slow = await member(world, "slow", window=5, qos=0, kind=SettlesBeforeItSends)
    slow.limit = 0
    await publish(world, 10, 29)
    slow.limit = 4  # Payload bytes: two at a time.
    slow.wake()
    assert payloads(slow.got) == [b"%d" % number for number in range(10, 30)]


async def test_what_expires_before_it_is_leased_is_counted(world: World) -> None:
    """P5"""
    one = await member(world, "one")
    await world.publish(message("late", "jobs/a", expires_at_us=1), message("kept", "jobs/a"))
    assert payloads(one.got) == [b"kept"]
    assert world.counters.dropped == {"expired": 1}


async def test_what_retention_removed_before_it_was_leased_again_is_counted(world: World) -> None:
    """P5, and the group goes on without it."""
    leaving = await member(world, "leaving")
    await publish(world, 1, 3)
    await world.disk.trim(Offset(3))
    leaving.close()
    staying = await member(world, "staying")
    await world.settled()
    assert numbers(staying) == [3]
    assert world.counters.dropped == {"removed by retention": 2}
    await staying.acknowledge()
    stored = await world.disk.get(CursorDocument, (GROUP,))
    assert stored is not None
    assert stored.offset == 3


async def test_what_is_leased_again_is_read_in_parts_that_are_bounded_in_bytes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P7, and none is taken for removed because it was not in the part."""
    monkeypatch.setattr("broker.delivery.sender.TAKE_BYTES_MAX", 200)
    leaving = await member(world, "leaving")
    await world.publish(*[message(str(n), "jobs/a", properties=bytes(99)) for n in range(1, 8)])
    assert numbers(leaving) == [1, 2, 3, 4, 5, 6, 7]
    await world.disk.trim(Offset(2))
    parts = world.disk.fetched
    leaving.close()
    staying = await member(world, "staying")
    await world.settled()
    assert payloads(staying.got) == [b"2", b"3", b"4", b"5", b"6", b"7"]
    assert [sum(m.size for m in part) for part in parts] == [200, 200, 200]
    assert world.counters.dropped == {"removed by retention": 1}


async def test_a_group_holds_no_more_in_flight_than_its_members_have_room_for() -> None:
    """P7: a slow worker costs its window."""
    async with running(Disk(), Config(outbox_messages_max=10)) as world:
        slow = await member(world, "slow", window=3)
        for first in range(1, 100, 9):
            await publish(world, first, first + 8)
        assert numbers(slow) == [1, 2, 3]
        assert slow.session is not None
        assert len(slow.session.supply.aside) == 0
        got = 0
        while len(slow.got) > got:
            got = len(slow.got)
            await slow.acknowledge()
        assert numbers(slow) == list(range(1, 100))


# What goes wrong


class Leaving(Subscriber):
    """Leaves when it cannot be served, as a client does."""

    def broken(self, error: StoreError) -> None:
        super().broken(error)
        self.close()

    def failed(self, error: Exception) -> None:
        super().failed(error)
        self.close()


def mistake(*_: object, **__: object) -> bool:
    raise ZeroDivisionError


async def test_who_cannot_be_served_leaves_its_share_to_the_others(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = [await member(world, name, kind=Leaving) for name in ("one", "two")]
    monkeypatch.setattr(one, "wake", mistake)
    await publish(world, 1, 4)
    assert [type(error) for error in one.errors] == [ZeroDivisionError]
    assert two.errors == []
    assert numbers(two) == [1, 2, 3, 4]


async def test_who_cannot_tell_what_fits_it_leaves_its_share_to_the_others(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = [await member(world, name, kind=Leaving) for name in ("one", "two")]
    one.payload_bytes_max = 10
    monkeypatch.setattr(one, "fits", mistake)
    await publish(world, 1, 4)
    await world.settled()
    assert ZeroDivisionError in map(type, one.errors)
    assert one.session is None
    assert numbers(two) == [1, 2, 3, 4]


@pytest.mark.parametrize("error", [ZeroDivisionError(), StoreCorrupt("checksum")])
async def test_a_group_that_cannot_be_served_cuts_its_members_off_and_opens_anew(
    error: Exception,
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Members that stayed would wait for ever."""
    one, two = [await member(world, name, kind=Leaving) for name in ("one", "two")]
    (group,) = world.groups._groups.values()
    assert group.sender is not None
    with monkeypatch.context() as patch:
        if isinstance(error, StoreError):
            world.delivery.failed(group.sender.session, error)
        else:
            patch.setattr(group, "_lease_new", mistake)
            await publish(world, 1, 1)
    assert [one.session, two.session] == [None, None]
    assert [record.levelname for record in caplog.records] == [
        "ERROR" if isinstance(error, StoreError) else "CRITICAL"
    ]
    assert world.groups.open_count == 0
    back = await member(world, "one")
    await publish(world, 2, 2)
    assert numbers(back)[-1] == 2
    assert back.errors == []


async def test_what_a_mistake_left_half_leased_is_leased_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P3"""
    leaving = await member(world, "leaving", kind=Leaving, expiry_s=100)
    await publish(world, 1, 1)
    one = await member(world, "one", kind=Leaving)
    world.groups.leave(placed(leaving), GROUP)
    (group,) = world.groups._groups.values()
    lease = group._lease

    def half(outgoing: Sequence[Outgoing], packet_ids: Sequence[int]) -> None:
        lease(outgoing[1:], packet_ids[1:])
        group.acknowledged(placed(one), [Lease(GROUP, packet_id) for packet_id in packet_ids])
        raise ZeroDivisionError

    monkeypatch.setattr(group, "_lease", half)
    await publish(world, 2, 3)
    assert [one.session, leaving.session] == [None, None]
    await world.settled()
    back = await member(world, "one")
    await world.settled()
    assert numbers(back) == [1, 2, 3]


async def test_a_mistake_while_one_leaves_a_group_leaves_it_all_the_same(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await member(world, "one")
    (group,) = world.groups._groups.values()
    monkeypatch.setattr(group, "return_leases", mistake)
    assert one.session is not None
    with pytest.raises(ZeroDivisionError):
        world.groups.detach(one.session)
    assert world.groups.open_count == 0


async def test_a_member_is_told_what_is_missing_before_its_message(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P5"""
    monkeypatch.setattr("broker.delivery.recent.RECENT_MESSAGES_MAX", 0)
    leaving = await member(world, "leaving")
    leaving.close()
    await publish(world, 1, 4)
    await world.disk.trim(Offset(3))
    staying = await member(world, "staying")
    await world.settled()
    assert [(m.payload, grant.missing) for m, grant in staying.got] == [
        (b"3", (range(1, 3),)),
        (b"4", ()),
    ]


async def test_what_waits_goes_to_whoever_has_room_first(world: World) -> None:
    """A member that was found without room has its turn again when it has acknowledged."""
    members = [await member(world, f"m{n}", window=1) for n in range(3)]
    await publish(world, 1, 9)
    for turn in (2, 0, 0, 1, 2, 0):
        await members[turn].acknowledge()
    assert numbers(*members) == list(range(1, 10))
    assert [len(m.got) for m in members] == [4, 2, 3]


@pytest.mark.parametrize("waiting", [0, 50])
async def test_an_acknowledgement_asks_no_member_but_the_next(
    world: World, monkeypatch: pytest.MonkeyPatch, waiting: int
) -> None:
    """However many members there are, with messages that wait or without."""
    members = [await member(world, f"m{n}", window=1) for n in range(100)]
    await publish(world, 1, 100 + waiting)
    asked = 0
    room = InFlightWindow.room

    def counted(window: InFlightWindow) -> int:
        nonlocal asked
        asked += 1
        return room(window)

    monkeypatch.setattr(InFlightWindow, "room", counted)
    for one in members[:20]:
        placed(one).in_flight.puback(one.packet_ids)
        world.groups.settle(placed(one))
        one.wake()
    assert asked <= 20 * 6
    assert len(numbers(*members)) == 100 + min(waiting, 20)


async def test_a_lease_ends_in_the_commit_of_the_members_packet_identifier(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the cursors of many wait: a crash must not lease it once more. [MQTT-4.8.2-4]"""
    monkeypatch.setattr("broker.log.log.SOURCES_MAX", 1)
    one = await member(world, "one", expiry_s=100, qos=2)
    one.limit = 0
    await publish(world, 1, 1, qos=2)
    await world.flushed()
    other = Subscriber(world)
    await other.open("other")
    commits = len(world.disk.commits)
    world.log.changed(placed(other), lambda error: None, urgent=False)
    one.limit = 1 << 20
    one.wake()
    world.log.changed(placed(one))
    await world.flushed()
    written = [
        {
            getattr(o.document, "client_id", "")
            for o in made
            if isinstance(o, Put) and isinstance(o.document, CursorDocument)
        }
        for _, made, _ in world.disk.commits[commits:]
    ]
    assert len(one.got) == 1
    assert {"one", GROUP} <= written[0]
