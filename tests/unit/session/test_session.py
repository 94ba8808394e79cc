from __future__ import annotations

from collections.abc import Iterable

import pytest

from broker.documents import CursorDocument, Put, ReceivedQos2Document, SubscriptionDocument
from broker.message import Grant, Offset
from broker.session.cursor import listed
from broker.session.position import LivePosition
from broker.session.session import Session
from tests.support.messages import message
from tests.support.sessions import (
    ALL,
    aside,
    commit,
    cursor_of,
    kept,
    numbered,
    offer,
    offer_kept,
    owing,
    session,
)
from tests.support.world import payloads, subscription


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


def test_what_a_crash_could_repeat_counts_against_the_window_until_it_is_committed() -> None:
    """P4"""
    sub = session(inflight_max=2)
    offer(sub, *numbered(3))
    sub.in_flight.puback(sub.supply.take(0, ALL).packet_ids)
    assert not sub.supply.take(0, ALL).outgoing
    sub.take_changes()
    assert not sub.supply.take(0, ALL).outgoing
    sub.committed()
    assert payloads(sub.supply.take(0, ALL).outgoing) == [b"3"]


def test_without_a_stored_session_nothing_waits_for_a_commit() -> None:
    sub = session(durable=False, inflight_max=2)
    offer(sub, *numbered(3, qos=2))
    first = sub.supply.take(0, ALL)
    assert not first.held
    sub.in_flight.pubrec(first.packet_ids, refused=False)
    sub.in_flight.pubcomp(first.packet_ids)
    assert payloads(sub.supply.take(0, ALL).outgoing) == [b"3"]
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
    sub.supply.take(0, ALL)
    sub.in_flight.puback([2, 4])
    assert sub.cursor() == 0
    sub.in_flight.puback([1])
    assert sub.cursor() == 2
    sub.in_flight.puback([3])
    assert sub.cursor() == 4


def test_a_message_that_waits_for_pubcomp_keeps_the_cursor_back() -> None:
    sub = session()
    offer(sub, *numbered(3, qos=2))
    sub.in_flight.pubrec(reversed(sub.supply.take(0, ALL).packet_ids), refused=False)
    assert sub.cursor() == 0
    sub.in_flight.pubcomp([1, 3])
    assert sub.cursor() == 1


def test_the_cursor_of_a_message_not_taken_is_before_it() -> None:
    sub = session(window=1)
    offer(sub, *numbered(2))
    sub.in_flight.puback(sub.supply.take(0, ALL).packet_ids)
    assert sub.cursor() == 1


def test_acknowledged_in_order_the_cursor_is_stored_without_a_list() -> None:
    sub = session()
    offer(sub, *numbered(3))
    sub.supply.take(0, ALL)
    sub.in_flight.puback([1])
    assert cursor_of(sub) == CursorDocument("sub1", Offset(1), Offset(1), 4, b"")


def test_out_of_order_the_stored_cursor_names_what_is_missing() -> None:
    """Also when what is missing has no gap in itself: 2 to 4 must not come again. (P4)"""
    sub = session()
    offer(sub, *numbered(4))
    sub.supply.take(0, ALL)
    sub.in_flight.puback([2, 3, 4])
    stored = cursor_of(sub)
    assert (stored.offset, stored.sent_through) == (0, 4)
    assert [(e.offset, e.packet_id) for e in listed(stored)] == [(1, 1)]


def test_a_qos_2_message_that_is_finished_is_not_forgotten_for_an_older_one_that_is_not() -> None:
    """Or a crash would deliver it twice. (P3)"""
    sub = session()
    offer(sub, *numbered(1), *numbered(1, first=2, qos=2))
    sub.supply.take(0, ALL)
    sub.in_flight.pubrec([2], refused=False)
    sub.in_flight.pubcomp([2])
    assert cursor_of(sub).sent_through == 2


def test_a_restored_session_goes_on_where_it_was() -> None:
    sub = session()
    offer(sub, *numbered(2), *numbered(2, first=3, qos=2))
    sub.supply.take(0, ALL)
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
    assert again.supply.take(0, ALL).packet_ids == [5], "three are in flight already"


def test_the_full_form_is_stored_when_the_client_leaves() -> None:
    sub = session()
    offer(sub, *numbered(3))
    sub.supply.take(0, ALL)
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
    sub.supply.take(0, ALL)
    aside(sub, *numbered(1, first=9))
    sub.detach()
    assert (len(sub.outbox), sub.outbox.size, len(sub.supply.aside)) == (0, 0, 0)
    assert sub.position.through == 1


# Beside the session's own place


# What is retained


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
    sub.supply.take(0, ALL)
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


def test_who_comes_back_and_is_owed_nothing_retained_does_not_wait_for_it() -> None:
    """It left before the reading had come to its end, and had all."""
    sub = session()
    sub.subscribe(subscription("#", retained_through=5))
    sub.owed.begin_read()
    sub.position.advance(Offset(5))
    sub.owed.offer([kept("a", 5)], last_part=False)
    sub.supply.take(0, ALL)
    sub.detach()
    assert owing(sub) == []
    sub.attach(100)
    offer(sub, *numbered(1, first=6))
    assert payloads(sub.supply.take(0, ALL).outgoing) == [b"6"]


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
    taken = moving.supply.take(0, ALL)
    assert moving.seek(Offset(1)) == []
    assert (moving.cursor(), moving.position.through) == (1, 1)
    assert not moving.supply.waiting
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
    moving.supply.offer_aside([(message("1", "a", offset=3), Grant(1, replay="a"))])
    [joining] = moving.seek(Offset(7))
    assert not moving.supply.waiting
    assert (joining.filter, joining.replaying, joining.start_offset) == ("a", False, 2)
