from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import pytest

from broker.message import Grant, Lease, Message, Offset, Outgoing, PacketIdentifier
from broker.session.exchange import InFlight, Stage, Taken
from broker.session.in_flight import InFlightWindow
from tests.support.messages import message
from tests.support.world import payloads

ALL = 1 << 30


def queue(messages: Iterable[Message], grant: Grant) -> deque[Outgoing]:
    return deque((m, grant) for m in messages)


def numbered(count: int, *, first: int = 1, qos: int = 1) -> list[Message]:
    return [message(str(n), offset=n, qos=qos) for n in range(first, first + count)]


def take(
    of: InFlightWindow,
    messages: Iterable[Message],
    *,
    grant: Grant | None = None,
    aside: bool = False,
) -> Taken:
    waiting = queue(messages, grant or Grant(2))
    return of.take(waiting, 0, ALL, aside=aside)


def unfinished(of: InFlightWindow) -> list[tuple[int, int, Stage]]:
    return [(entry.packet_id, entry.offset, entry.stage) for entry in of.unfinished()]


def durable(inflight_max: int) -> InFlightWindow:
    window = InFlightWindow(inflight_max)
    window.durable = True
    return window


def in_flight(offset: int, packet_id: int, stage: Stage, **flags: bool) -> InFlight:
    return InFlight(Offset(offset), PacketIdentifier(packet_id), stage, **flags)


# How many may go


def test_what_finds_no_room_in_the_window_holds_up_what_comes_after_it() -> None:
    """[MQTT-3.3.4-9, MQTT-4.9.0-2]"""
    window = durable(100)
    window.open(2)
    waiting = queue([*numbered(3), message("0", qos=0, offset=4)], Grant(2))
    taken = window.take(waiting, 0, ALL, aside=False)
    assert (payloads(taken.outgoing), taken.packet_ids) == ([b"1", b"2"], [1, 2])
    assert not window.take(waiting, 0, ALL, aside=False).outgoing
    window.puback([2])
    taken = window.take(waiting, 0, ALL, aside=False)
    assert (payloads(taken.outgoing), taken.packet_ids) == ([b"3", b"0"], [3, 0])


def test_no_client_gets_more_in_flight_than_we_permit_ourselves() -> None:
    window = durable(3)
    window.open(65_535)
    assert len(take(window, numbered(4)).outgoing) == 3


def test_what_a_crash_could_repeat_takes_room_until_a_commit_that_began_after_it() -> None:
    """P4"""
    window = durable(2)
    window.repeatable.commit_begins()
    window.puback(take(window, numbered(2)).packet_ids)
    window.repeatable.committed()
    assert window.room() == 0
    window.repeatable.commit_begins()
    assert window.room() == 0
    window.repeatable.committed()
    assert window.room() == 2


def test_a_full_disk_does_not_keep_a_subscriber_from_reading() -> None:
    window = durable(2)
    window.puback(take(window, numbered(2)).packet_ids)
    window.repeatable.commit_begins()
    window.repeatable.not_committed()
    assert window.room() == 2
    window.repeatable.commit_begins()
    window.repeatable.committed()
    window.puback(take(window, numbered(2)).packet_ids)
    assert window.room() == 0, "the log takes it again"


def test_without_a_stored_session_room_does_not_wait_for_a_commit() -> None:
    window = durable(2)
    window.puback(take(window, numbered(2)).packet_ids)
    assert window.room() == 0
    window.durable = False
    assert window.room() == 2


def test_a_window_can_be_opened_for_some_messages_more() -> None:
    window = durable(2)
    take(window, numbered(2))
    window.allow(3, inflight_max=9)
    assert (len(window), window.room()) == (2, 3)
    window.allow(3, inflight_max=4)
    assert window.room() == 2


# Taking


def test_a_group_keeps_qos_0_in_flight_until_a_member_sent_it() -> None:
    window = durable(2)
    window.keep_qos0()
    taken = take(window, [message(str(n), qos=0, offset=n) for n in (1, 2, 3)], grant=Grant(1))
    assert (payloads(taken.outgoing), taken.packet_ids, len(window)) == ([b"1", b"2"], [1, 2], 2)
    assert unfinished(window) == [(1, 1, Stage.SENT_QOS1), (2, 2, Stage.SENT_QOS1)]
    window.puback([1])
    assert window.acknowledged_through(Offset(2)) == 1


def test_taking_stops_at_a_number_of_bytes_but_takes_one_message_at_least() -> None:
    window = durable(100)
    waiting = queue([message(b"x" * 10, offset=n) for n in (1, 2, 3)], Grant(1))
    assert len(window.take(waiting, 0, 1, aside=False).outgoing) == 1
    assert len(window.take(waiting, 0, 300, aside=False).outgoing) == 2


def test_all_that_a_message_takes_in_memory_counts_for_the_bounds() -> None:
    """P7"""
    window = durable(100)
    heavy = [message("1", offset=n, properties=bytes(99)) for n in (1, 2, 3)]
    waiting = queue(
        [*heavy, message("1", offset=4, properties=bytes(99), expires_at_us=1)], Grant(1)
    )
    two = 2 * heavy[0].cost
    taken = window.take(waiting, 2, two, aside=False)
    assert (len(taken.outgoing), taken.payload_bytes, taken.size) == (2, 2, two)
    taken = window.take(waiting, 2, two, aside=False)
    assert (len(taken.outgoing), taken.payload_bytes, taken.size) == (1, 1, two)


def test_expired_messages_are_left_out_and_hold_up_nothing() -> None:
    """[MQTT-3.3.2-5]; however many they are: nobody would wake the session for the next ones."""
    window = durable(100)
    old = [message(b"x" * 100, offset=n, expires_at_us=5) for n in range(1, 50)]
    waiting = queue([*old, message("new", offset=50, expires_at_us=6)], Grant(1))
    taken = window.take(waiting, 5, 200, aside=False)
    assert payloads(taken.outgoing) == [b"new"]
    assert [m.offset for m, _ in taken.expired] == [*range(1, 50)]
    assert not waiting


def test_the_lower_qos_of_message_and_subscription_counts() -> None:
    """[MQTT-3.8.4-8]"""
    window = durable(100)
    take(window, [message(qos=2, offset=1)], grant=Grant(1))
    assert take(window, [message(qos=0, offset=2)], grant=Grant(2)).packet_ids == [0]
    assert unfinished(window) == [(1, 1, Stage.SENT_QOS1)]


def test_identifiers_start_over_after_the_last_and_pass_over_those_in_use() -> None:
    """[MQTT-2.2.1-4]"""
    window = durable(100)
    window.restore(65_534, [])
    assert take(window, numbered(3)).packet_ids == [65_534, 65_535, 1]
    again = InFlightWindow(100)
    in_use = [in_flight(1, 65_535, Stage.SENT_QOS1), in_flight(2, 1, Stage.RELEASED)]
    again.restore(65_535, in_use)
    assert take(again, numbered(2, first=4)).packet_ids == [2, 3]


def test_qos_2_is_held_until_its_identifier_is_committed_and_qos_1_is_not() -> None:
    window = durable(100)
    assert not take(window, numbered(1)).held
    assert take(window, [*numbered(1, first=2, qos=2), *numbered(1, first=3)]).held
    assert not take(window, numbered(1, first=4)).held
    window.durable = False
    assert not take(window, numbered(1, first=5, qos=2)).held


# Acknowledgements


def test_a_qos_2_exchange_goes_through_its_stages() -> None:
    """[MQTT-4.3.3-5..9]"""
    window = durable(100)
    take(window, numbered(2, qos=2))
    assert window.pubrec([1], refused=False) == [1]
    assert unfinished(window) == [(1, 1, Stage.RELEASED), (2, 2, Stage.SENT_QOS2)]
    assert window.pubrec([1, 77], refused=False) == [1], "a repeated PUBREC is answered again"
    window.pubcomp([1])
    assert unfinished(window) == [(2, 2, Stage.SENT_QOS2)]


def test_a_refused_qos_2_message_is_finished() -> None:
    """[MQTT-4.3.3-4]"""
    window = durable(100)
    take(window, numbered(1, qos=2))
    assert window.pubrec([1], refused=True) == [1]
    assert unfinished(window) == []
    assert window.acknowledged_through(Offset(1)) == 1


def test_releases_keep_the_order_of_the_receipts() -> None:
    """[MQTT-4.6.0-4, MQTT3-4.6.0-4] Also when they come back from the log."""
    window, again = InFlightWindow(100), InFlightWindow(100)
    take(window, numbered(4, qos=2))
    window.pubrec([3, 1], refused=False)
    again.restore(5, window.unfinished())
    for each in (window, again):
        assert [entry.packet_id for entry in each.unfinished()] == [3, 1, 2, 4]


def test_unknown_identifiers_change_nothing() -> None:
    window = durable(1)
    take(window, numbered(1))
    window.puback([5, 6])
    window.pubcomp([1])
    window.finish([7])
    assert window.pubrec([1], refused=False) == []
    assert window.pubrec([1], refused=True) == []
    assert window.room() == 0
    assert unfinished(window) == [(1, 1, Stage.SENT_QOS1)]


def test_what_cannot_be_sent_counts_as_acknowledged() -> None:
    window = InFlightWindow(3)
    taken = take(window, [*numbered(1), *numbered(2, first=2, qos=2)])
    window.pubrec([3], refused=False)
    window.finish(taken.packet_ids)
    window.allow(9, inflight_max=3)
    assert (unfinished(window), window.room()) == ([], 3)


def test_every_way_to_finish_makes_room_once() -> None:
    window = InFlightWindow(4)
    take(window, [*numbered(2), *numbered(2, first=3, qos=2)])
    window.puback([1, 1])
    window.pubrec([3], refused=True)
    window.pubrec([4], refused=False)
    window.pubcomp([4, 4])
    window.allow(9, inflight_max=4)
    assert (len(window), window.room()) == (1, 3)


def test_who_is_asked_for_is_in_flight_at_qos_1() -> None:
    window = durable(100)
    take(window, [*numbered(2, first=70), *numbered(1, first=72, qos=2)])
    [entry] = window.sent_qos1([2, 3, 9])
    assert (entry.offset, entry.packet_id, entry.stage) == (71, 2, Stage.SENT_QOS1)


# Leases


def leased(window: InFlightWindow, *groups: str, qos: int = 1) -> None:
    """One message from each group, in flight under 1, 2, 3 ..."""
    taken = take(window, numbered(len(groups), qos=qos), aside=True)
    leases = [Lease(group, 100 + n) for n, group in enumerate(groups)]
    window.lease(zip(taken.packet_ids, leases, strict=True))


def test_a_lease_ends_with_the_acknowledgement_of_its_message() -> None:
    window = durable(100)
    leased(window, "a", "b")
    assert (window.leases.has("a"), window.leases.take_settled()) == (True, [])
    window.puback([1])
    assert (window.leases.has("a"), window.leases.has("b")) == (False, True)
    assert window.leases.take_settled() == [Lease("a", 100)]
    assert window.leases.take_settled() == []


@pytest.mark.parametrize("qos", [0, 2])
def test_a_lease_ends_at_once_unless_its_message_is_in_flight_at_qos_1(qos: int) -> None:
    """QoS 2 belongs to the member that it was sent to. [MQTT-4.8.2-4, MQTT-4.8.2-5]"""
    window = durable(100)
    leased(window, "a", qos=qos)
    assert (window.leases.has("a"), window.leases.take_settled()) == (False, [Lease("a", 100)])


def test_what_is_leased_is_not_continued_but_goes_back_to_its_group() -> None:
    window = InFlightWindow(3)
    leased(window, "a", "b", "a")
    assert window.unfinished() == []
    assert window.return_leases() == [Lease("a", 100), Lease("b", 101), Lease("a", 102)]
    assert (len(window), window.leases.has("b"), window.room()) == (0, False, 3)
    assert window.leases.take_settled() == [], "whoever returns a lease does not end it"


def test_what_is_leased_is_the_sessions_own_when_its_group_ends() -> None:
    """[MQTT-3.10.4-3]"""
    window = durable(3)
    leased(window, "a", "b", "a")
    assert window.keep_leases("a") == [Lease("a", 100), Lease("a", 102)]
    assert len(window) == 3
    assert [entry.aside for entry in window.unfinished()] == [True, True]
    assert window.return_leases() == [Lease("b", 101)]
    window.puback([entry.packet_id for entry in window.unfinished()])
    assert (len(window), window.leases.take_settled()) == (0, [])


# What the log keeps


def test_everything_before_the_oldest_unacknowledged_message_is_acknowledged() -> None:
    window = durable(100)
    assert window.acknowledged_through(Offset(9)) == 9
    take(window, [*numbered(2), *numbered(2, first=3, qos=2)])
    window.puback([2])
    assert window.acknowledged_through(Offset(9)) == 0
    window.puback([1])
    assert window.acknowledged_through(Offset(9)) == 2
    window.pubrec([4, 3], refused=False)
    assert window.acknowledged_through(Offset(9)) == 2, "PUBCOMP is awaited"
    window.pubcomp([3])
    assert window.acknowledged_through(Offset(9)) == 3


def test_nothing_waits_for_what_is_aside() -> None:
    window = durable(100)
    take(window, numbered(1, first=2), grant=Grant(1, retained=True), aside=True)
    take(window, numbered(1, first=8))
    assert window.acknowledged_through(Offset(8)) == 7
    window.puback([2])
    assert window.acknowledged_through(Offset(8)) == 8
    assert window.unfinished() == [in_flight(2, 1, Stage.SENT_QOS1, retained=True, aside=True)]


def test_the_order_is_kept_when_the_newest_identifiers_are_in_flight() -> None:
    window = durable(100)
    assert window.in_order()
    window.restore(65_534, [])
    take(window, numbered(4))
    assert window.in_order()
    window.puback([65_534, 65_535])
    assert window.in_order()
    window.puback([2])
    assert not window.in_order()


def test_the_order_is_lost_by_a_gap_by_qos_2_and_by_what_is_aside() -> None:
    """Also when what is missing has no gap in itself: the others must not come again. (P4)"""
    gap, qos2, aside = durable(9), durable(9), InFlightWindow(9)
    take(gap, numbered(4))
    gap.puback([2, 3, 4])
    take(qos2, numbered(1, qos=2))
    take(aside, numbered(1), aside=True)
    assert [window.in_order() for window in (gap, qos2, aside)] == [False, False, False]
    qos2.pubrec([1], refused=False)
    assert not qos2.in_order()
    qos2.pubcomp([1])
    aside.puback([1])
    assert [window.in_order() for window in (qos2, aside)] == [True, True]


def test_a_restored_window_goes_on_where_it_was() -> None:
    window, again = durable(9), durable(9)
    take(window, [*numbered(1), *numbered(2, first=2, qos=2)])
    take(window, numbered(1, first=1), aside=True)
    window.pubrec([3], refused=False)
    again.restore(window.next_packet_id, window.unfinished())
    assert again.unfinished() == window.unfinished()
    assert (len(again), again.room()) == (4, 5)
    assert take(again, numbered(1, first=9)).packet_ids == [5]
    again.puback([4])
    assert again.acknowledged_through(Offset(9)) == 0


def test_the_cursor_waits_for_nothing_that_was_set_aside() -> None:
    window = durable(10)
    window.open(10)
    waiting = deque([(message(str(n), qos=1 + n % 2, offset=n), Grant(2)) for n in range(1, 5)])
    taken = window.take(waiting, 0, ALL, aside=False)
    window.pubrec(taken.packet_ids[:1], refused=False)
    assert window.acknowledged_through(Offset(4)) == 0
    window.set_aside()
    assert window.acknowledged_through(Offset(4)) == 4
    assert not window.in_order(), "so the cursor lists them"
    assert [entry.aside for entry in window.unfinished()] == [True] * 4
    window.changed.watch()
    window.set_aside()
    assert window.changed.take() == {0}
    window.finish(taken.packet_ids)
    assert window.in_order()
