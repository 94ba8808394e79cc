from __future__ import annotations

from collections.abc import Iterable

import pytest

from broker.documents import CursorDocument, Put, ReceivedQos2Document, SubscriptionDocument
from broker.message import Grant, Lease, Message, Offset, Outgoing
from broker.session.cursor import listed
from broker.session.outbox import with_missing
from broker.session.position import LivePosition
from broker.session.session import Session
from tests.support.messages import message
from tests.support.world import payloads, subscription

ALL = 1 << 30


def session(*, durable: bool = True, inflight_max: int = 100, window: int = 100) -> Session:
    """A connected session that has nothing to store but what the test makes."""
    made = Session("sub1", created_at_us=1, start=Offset(0), inflight_max=inflight_max)
    made.set_expiry(60 if durable else 0)
    made.attach(window)
    return made


def offer(to: Session, *messages: Message, qos: int = 2) -> None:
    """As a live reader does."""
    to.offer([(m, Grant(qos)) for m in messages], sum(m.cost for m in messages))
    to.position.advance(messages[-1].offset)


def numbered(count: int, *, first: int = 1, qos: int = 1) -> list[Message]:
    return [message(str(n), offset=n, qos=qos) for n in range(first, first + count)]


def cursor_of(of: Session) -> CursorDocument:
    [put] = [p for p in of.take_changes() if isinstance(p, Put)]
    assert isinstance(put.document, CursorDocument)
    return put.document


def commit(of: Session) -> None:
    of.take_changes()
    of.committed()


def restored(
    cursor: CursorDocument | None,
    received: ReceivedQos2Document | None = None,
    subscriptions: Iterable[SubscriptionDocument] = (),
) -> Session:
    made = Session("sub1", created_at_us=1, start=Offset(0), inflight_max=100)
    made.set_expiry(60)
    for document in subscriptions:
        made.subscribe(document)
    made.restore(cursor, (), received)
    return made


# Taking


def expiring(offset: int, *, at: int | None = 5) -> Message:
    return message(str(offset), offset=offset, qos=1, expires_at_us=at)


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize("there", [False, True])
def test_what_expired_leaves_to_the_next_message_which_offsets_are_missing(
    waits: bool, there: bool
) -> None:
    """P5. `there`: the next is taken with it; `waits`: it has no room yet."""
    sub = session(window=1 if waits else 100)
    offer(sub, expiring(1, at=None))
    sub.miss([range(2, 4)])
    if waits or there:
        offer(sub, expiring(4), expiring(5, at=None))
    else:
        offer(sub, expiring(4))
    first = sub.take(9, ALL)
    assert [m.offset for m, _ in first.expired] == [4]
    taken = [*first.outgoing]
    if waits:
        sub.in_flight.puback(first.packet_ids)
        commit(sub)
    elif not there:
        assert cursor_of(sub).offset <= 1, "or nobody would tell it after a crash"
        offer(sub, expiring(5, at=None))
    taken += sub.take(9, ALL).outgoing
    assert [(m.offset, g.missing) for m, g in taken] == [(1, ()), (5, (range(2, 4),))]


def test_what_expired_of_what_is_aside_leaves_to_its_next_message_which_offsets_are_missing() -> (
    None
):
    sub, grant = session(), Grant(1)
    told, _ = with_missing([(expiring(4), grant), (expiring(5, at=None), grant)], [range(2, 4)])
    sub.offer_aside(told)
    assert [(m.offset, g.missing) for m, g in sub.take(9, ALL).outgoing] == [(5, (range(2, 4),))]


def test_the_outbox_counts_what_waits_in_it() -> None:
    """P7"""
    sub = session()
    heavy = [message("1", offset=n, properties=bytes(99)) for n in (1, 2, 3)]
    offer(sub, *heavy, message("1", offset=4, properties=bytes(99), expires_at_us=1))
    two = 2 * heavy[0].cost
    assert sub.outbox.size == 2 * two
    sub.take(2, two)
    assert sub.outbox.size == two
    taken = sub.take(2, two)
    assert (len(taken.expired), sub.outbox.size) == (1, 0)


def test_what_a_crash_could_repeat_counts_against_the_window_until_it_is_committed() -> None:
    """P4"""
    sub = session(inflight_max=2)
    offer(sub, *numbered(3))
    sub.in_flight.puback(sub.take(0, ALL).packet_ids)
    assert not sub.take(0, ALL).outgoing
    sub.take_changes()
    assert not sub.take(0, ALL).outgoing
    sub.committed()
    assert payloads(sub.take(0, ALL).outgoing) == [b"3"]


def test_without_a_stored_session_nothing_waits_for_a_commit() -> None:
    sub = session(durable=False, inflight_max=2)
    offer(sub, *numbered(3, qos=2))
    first = sub.take(0, ALL)
    assert not first.held
    sub.in_flight.pubrec(first.packet_ids, refused=False)
    sub.in_flight.pubcomp(first.packet_ids)
    assert payloads(sub.take(0, ALL).outgoing) == [b"3"]
    assert sub.take_changes() == []


# Incoming QoS 2


def test_received_and_released_identifiers_are_stored() -> None:
    """Or a message with a released identifier would be taken for one that was sent again. (P1)"""
    sub = session()
    commit(sub)
    sub.received.receive(258)
    assert sub.take_changes() == [Put(ReceivedQos2Document("sub1", b"\x01\x02"))]
    sub.received.release([258])
    assert sub.take_changes() == [Put(ReceivedQos2Document("sub1", b""))]


# The cursor


def test_the_cursor_stays_before_the_oldest_unacknowledged_message() -> None:
    sub = session()
    offer(sub, *numbered(4))
    assert sub.cursor() == 0
    sub.take(0, ALL)
    sub.in_flight.puback([2, 4])
    assert sub.cursor() == 0
    sub.in_flight.puback([1])
    assert sub.cursor() == 2
    sub.in_flight.puback([3])
    assert sub.cursor() == 4


def test_a_message_that_waits_for_pubcomp_keeps_the_cursor_back() -> None:
    sub = session()
    offer(sub, *numbered(3, qos=2))
    sub.in_flight.pubrec(reversed(sub.take(0, ALL).packet_ids), refused=False)
    assert sub.cursor() == 0
    sub.in_flight.pubcomp([1, 3])
    assert sub.cursor() == 1


def test_the_cursor_of_a_message_not_taken_is_before_it() -> None:
    sub = session(window=1)
    offer(sub, *numbered(2))
    sub.in_flight.puback(sub.take(0, ALL).packet_ids)
    assert sub.cursor() == 1


def test_acknowledged_in_order_the_cursor_is_stored_without_a_list() -> None:
    sub = session()
    offer(sub, *numbered(3))
    sub.take(0, ALL)
    sub.in_flight.puback([1])
    assert cursor_of(sub) == CursorDocument("sub1", Offset(1), Offset(1), 4, b"")


def test_out_of_order_the_stored_cursor_names_what_is_missing() -> None:
    """Also when what is missing has no gap in itself: 2 to 4 must not come again. (P4)"""
    sub = session()
    offer(sub, *numbered(4))
    sub.take(0, ALL)
    sub.in_flight.puback([2, 3, 4])
    stored = cursor_of(sub)
    assert (stored.offset, stored.sent_through) == (0, 4)
    assert [(e.offset, e.packet_id) for e in listed(stored)] == [(1, 1)]


def test_a_qos_2_message_that_is_finished_is_not_forgotten_for_an_older_one_that_is_not() -> None:
    """Or a crash would deliver it twice. (P3)"""
    sub = session()
    offer(sub, *numbered(1), *numbered(1, first=2, qos=2))
    sub.take(0, ALL)
    sub.in_flight.pubrec([2], refused=False)
    sub.in_flight.pubcomp([2])
    assert cursor_of(sub).sent_through == 2


def test_a_restored_session_goes_on_where_it_was() -> None:
    sub = session()
    offer(sub, *numbered(2), *numbered(2, first=3, qos=2))
    sub.take(0, ALL)
    sub.in_flight.puback([2])
    sub.in_flight.pubrec([4], refused=False)
    sub.received.receive(300)
    sub.detach()
    stored = {type(p.document): p.document for p in sub.take_changes() if isinstance(p, Put)}
    cursor, received = stored[CursorDocument], stored[ReceivedQos2Document]
    assert isinstance(cursor, CursorDocument)
    assert isinstance(received, ReceivedQos2Document)
    again = restored(cursor, received)
    assert again.in_flight.unfinished() == sub.in_flight.unfinished()
    assert again.position.through == 4
    assert again.cursor() == 0
    assert not again.received.receive(300)
    again.attach(4)
    offer(again, *numbered(2, first=5))
    assert again.take(0, ALL).packet_ids == [5], "three are in flight already"


def test_the_full_form_is_stored_when_the_client_leaves() -> None:
    sub = session()
    offer(sub, *numbered(3))
    sub.take(0, ALL)
    sub.detach()
    assert [e.packet_id for e in listed(cursor_of(sub))] == [1, 2, 3]


def test_what_has_not_changed_is_not_written_again_unless_it_was_not_stored() -> None:
    sub = session()
    sub.received.receive(1)
    assert len(sub.take_changes()) == 2
    assert sub.take_changes() == []
    sub.not_committed()
    assert len(sub.take_changes()) == 2


def test_a_session_that_ended_has_nothing_to_store_unless_that_was_not_stored() -> None:
    sub = session()
    sub.received.receive(1)
    sub.end()
    assert sub.take_changes() == []
    sub.not_ended()
    assert len(sub.take_changes()) == 2


def test_a_session_is_stored_from_when_it_may_outlive_its_connection() -> None:
    """[MQTT-3.1.2-23]"""
    new = restored(None)
    new.set_expiry(0)
    new.received.receive(1)
    assert (new.durable, new.take_changes()) == (False, [])
    new.set_expiry(1)
    assert new.durable
    assert len(new.take_changes()) == 2


def test_a_session_of_which_the_log_kept_nothing_is_at_its_start() -> None:
    new = Session("sub1", created_at_us=1, start=Offset(7), inflight_max=100)
    new.restore(None, (), None)
    assert (new.durable, new.cursor(), new.in_flight.unfinished()) == (False, 7, [])


def test_who_leaves_keeps_a_place_in_the_log_and_nothing_in_memory() -> None:
    """P7"""
    sub = session(window=1)
    offer(sub, *numbered(3))
    sub.take(0, ALL)
    aside(sub, *numbered(1, first=9))
    sub.detach()
    assert (len(sub.outbox), sub.outbox.size, len(sub.aside)) == (0, 0, 0)
    assert sub.position.through == 1


# Beside the session's own place


def aside(of: Session, *messages: Message, replay: str = "") -> None:
    entries: list[Outgoing] = [(m, Grant(2, retained=not replay, replay=replay)) for m in messages]
    of.offer_aside(entries)


def test_what_is_aside_goes_first_and_the_cursor_does_not_wait_for_it() -> None:
    sub = session()
    offer(sub, *numbered(1, first=8))
    aside(sub, *numbered(1, first=2))
    assert payloads(sub.take(0, ALL).outgoing + sub.take(0, ALL).outgoing) == [b"2", b"8"]
    sub.in_flight.puback([2])
    assert sub.cursor() == 8
    [entry] = sub.in_flight.unfinished()
    assert (entry.offset, entry.retained, entry.aside) == (2, True, True)
    assert listed(cursor_of(sub)) == [entry]


def test_a_replay_goes_on_after_what_was_taken_of_it() -> None:
    """However much of what it offered was not: nothing is repeated, nothing lost. (P3, P4)"""
    sub = session(window=3)
    replay, other = subscription("t", replaying=True), subscription("#", replaying=True)
    sub.subscribe(replay)
    sub.subscribe(other)
    aside(sub, *numbered(2, first=70), replay="#")
    aside(sub, *numbered(4), replay="t")
    sub.take(0, ALL)
    stored = [p.document for p in sub.take_changes() if isinstance(p, Put)]
    sub.in_flight.puback([1, 2, 3])
    commit(sub)
    sub.take(0, ALL)
    places = {s.filter: s.start_offset for s in stored if isinstance(s, SubscriptionDocument)}
    assert places == {"t": 1, "#": 71}, "what was to be stored has not moved on meanwhile"
    assert (replay.start_offset, other.start_offset) == (4, 71)


def test_what_waits_of_a_replay_goes_when_the_subscription_is_made_anew_or_ended() -> None:
    sub = session()
    sub.subscribe(subscription("t", replaying=True))
    aside(sub, *numbered(2), replay="t")
    aside(sub, *numbered(1, first=9))
    sub.subscribe(subscription("t", replaying=True))
    assert payloads(list(sub.aside)) == [b"9"]
    aside(sub, *numbered(2), replay="t")
    sub.unsubscribe("t")
    assert payloads(list(sub.aside)) == [b"9"]


def test_what_a_group_leased_goes_back_to_it() -> None:
    """First what is not acknowledged, then what waits; not what another group leased."""
    sub = session(window=2)
    entries = numbered(4)
    for number, group in enumerate(("a", "b", "a", "b"), 1):
        sub.offer_aside([(entries[number - 1], Grant(1, lease=Lease(group, number)))])
    sub.take(0, ALL)
    assert sub.waiting_leases("b") == [Lease("b", 4)]
    assert payloads(list(sub.aside)) == [b"3"]
    assert sub.waiting_leases("a") == [Lease("a", 3)]
    assert sub.in_flight.return_leases() == [Lease("a", 1), Lease("b", 2)]
    assert (len(sub.aside), len(sub.in_flight), sub.room()) == (0, 0, 2)


# What is retained


def kept(topic: str, offset: int, publisher: str = "pub1") -> Message:
    return message(topic=topic, offset=offset, publisher=publisher, retain=True)


def offer_kept(to: Session, messages: list[Message]) -> None:
    """Read them anew, and all at once. All from before them was offered."""
    to.position.advance(messages[-1].offset)
    to.owed.begin_read()
    to.owed.offer(messages, last_part=True)


def owing(of: Session) -> list[str]:
    return [subscription.filter for subscription in of.owed.subscriptions()]


def stored_places(of: Session) -> dict[str, tuple[int, int]]:
    """What is owed of retained messages, as the next commit stores it."""
    return {
        put.document.filter: (put.document.retained_after, put.document.retained_through)
        for put in of.take_changes()
        if isinstance(put, Put) and isinstance(put.document, SubscriptionDocument)
    }


def test_what_is_owed_of_retained_messages_goes_on_after_what_was_taken() -> None:
    """And is stored with the Packet Identifiers of that, or QoS 2 would come twice. (P3)"""
    sub = session(window=2)
    sub.subscribe(subscription("a/+", retained_through=90))
    sub.subscribe(subscription("b", retained_through=90))
    retained = [kept("a/1", 3), kept("b", 5), kept("a/2", 7)]
    offer_kept(sub, retained)
    assert stored_places(sub) == {}
    sub.take(0, ALL)
    assert stored_places(sub) == {"a/+": (3, 7), "b": (5, 5)}
    sub.not_committed()
    assert stored_places(sub) == {"a/+": (3, 7), "b": (5, 5)}
    sub.committed()
    assert stored_places(sub) == {}
    sub.detach()
    assert owing(sub) == ["a/+"]
    sub.attach(100)
    offer_kept(sub, retained)
    assert [m.offset for m, _ in sub.owed.waiting] == [7]


def test_who_unsubscribed_is_owed_nothing_that_is_retained() -> None:
    sub = session()
    sub.subscribe(subscription("#", retained_through=5))
    sub.unsubscribe("#")
    assert sub.owed.begin_read() == []


def test_the_outbox_waits_while_retained_messages_are_read() -> None:
    """Or the older message of a topic could come after the newer."""
    sub = session()
    sub.subscribe(subscription("#", retained_through=5))
    offer(sub, *numbered(1, first=9))
    sub.owed.begin_read()
    assert not sub.take(0, ALL).outgoing
    sub.owed.offer([kept("t", 3)], last_part=True)
    both = sub.take(0, ALL).outgoing + sub.take(0, ALL).outgoing
    assert [m.offset for m, _ in both] == [3, 9]


def test_what_waits_is_replaced_when_retained_messages_are_read_again() -> None:
    """As for another subscription, made while those of the first wait: nothing comes twice."""
    sub = session()
    sub.subscribe(subscription("a", retained_through=9))
    offer_kept(sub, [kept("a", 3)])
    sub.offer_aside([(message("from $SYS"), Grant(0, retained=True))])
    sub.subscribe(subscription("#", retained_through=9))
    offer_kept(sub, [kept("b", 2), kept("a", 3)])
    both = sub.take(0, ALL).outgoing + sub.take(0, ALL).outgoing
    assert [m.offset for m, _ in both] == [0, 2, 3]


def test_who_comes_back_and_is_owed_nothing_retained_does_not_wait_for_it() -> None:
    """It left before the reading had come to its end, and had all."""
    sub = session()
    sub.subscribe(subscription("#", retained_through=5))
    sub.owed.begin_read()
    sub.position.advance(Offset(5))
    sub.owed.offer([kept("a", 5)], last_part=False)
    sub.take(0, ALL)
    sub.detach()
    assert owing(sub) == []
    sub.attach(100)
    offer(sub, *numbered(1, first=6))
    assert payloads(sub.take(0, ALL).outgoing) == [b"6"]


def test_a_retained_message_that_expires_while_it_waits_is_not_owed_for_ever() -> None:
    sub = session()
    sub.subscribe(subscription("a", retained_through=9))
    offer_kept(sub, [message(topic="a", offset=3, retain=True, expires_at_us=5)])
    taken = sub.take(6, ALL)
    assert (len(taken.outgoing), len(taken.expired), owing(sub)) == (0, 1, [])


def test_a_session_that_caught_up_remembers_no_topics(monkeypatch: pytest.MonkeyPatch) -> None:
    """P7"""
    sub = session()
    forgotten: list[bool] = []
    monkeypatch.setattr(sub.grants, "forget", lambda: forgotten.append(True))
    sub.go_live(LivePosition(Offset(3)))
    assert forgotten == [True]


# Going on elsewhere


def test_a_session_that_goes_back_keeps_what_is_in_flight_and_nothing_of_the_outbox() -> None:
    moving = session(window=2)
    moving.subscribe(subscription(start=0))
    offer(moving, *numbered(4, qos=1))
    taken = moving.take(0, ALL)
    assert moving.seek(Offset(1)) == []
    assert (moving.cursor(), moving.position.through) == (1, 1)
    assert not moving.waiting
    cursor = cursor_of(moving)
    assert (cursor.offset, cursor.sent_through) == (1, 1)
    assert [e.packet_id for e in listed(cursor)] == taken.packet_ids
    assert restored(cursor).cursor() == 1


def test_a_session_that_goes_forward_has_acknowledged_what_lies_between() -> None:
    moving = session()
    offer(moving, *numbered(2))
    moving.seek(Offset(9))
    assert cursor_of(moving).offset == 9


def test_a_replay_goes_on_with_a_session_that_goes_elsewhere() -> None:
    moving = session()
    moving.subscribe(subscription("a", start=2, replaying=True))
    moving.offer_aside([(message("1", "a", offset=3), Grant(1, replay="a"))])
    [joining] = moving.seek(Offset(7))
    assert not moving.waiting
    assert (joining.filter, joining.replaying, joining.start_offset) == ("a", False, 2)
