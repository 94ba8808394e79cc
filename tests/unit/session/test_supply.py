"""What a session has for its client, and what of it goes next."""

from __future__ import annotations

import pytest

from broker.documents import Put, SubscriptionDocument
from broker.message import Grant, Lease, Message
from broker.session.cursor import listed
from broker.session.outbox import with_missing
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
    sub.supply.miss([range(2, 4)])
    if waits or there:
        offer(sub, expiring(4), expiring(5, at=None))
    else:
        offer(sub, expiring(4))
    first = sub.supply.take(9, ALL)
    assert [m.offset for m, _ in first.expired] == [4]
    taken = [*first.outgoing]
    if waits:
        sub.in_flight.puback(first.packet_ids)
        commit(sub)
    elif not there:
        assert cursor_of(sub).offset <= 1, "or nobody would tell it after a crash"
        offer(sub, expiring(5, at=None))
    taken += sub.supply.take(9, ALL).outgoing
    assert [(m.offset, g.missing) for m, g in taken] == [(1, ()), (5, (range(2, 4),))]


def test_what_expired_of_what_is_aside_leaves_to_its_next_message_which_offsets_are_missing() -> (
    None
):
    sub, grant = session(), Grant(1)
    told, _ = with_missing([(expiring(4), grant), (expiring(5, at=None), grant)], [range(2, 4)])
    sub.supply.offer_aside(told)
    assert [(m.offset, g.missing) for m, g in sub.supply.take(9, ALL).outgoing] == [
        (5, (range(2, 4),))
    ]


def test_the_outbox_counts_what_waits_in_it() -> None:
    """P7"""
    sub = session()
    heavy = [message("1", offset=n, properties=bytes(99)) for n in (1, 2, 3)]
    offer(sub, *heavy, message("1", offset=4, properties=bytes(99), expires_at_us=1))
    two = 2 * heavy[0].cost
    assert sub.outbox.size == 2 * two
    sub.supply.take(2, two)
    assert sub.outbox.size == two
    taken = sub.supply.take(2, two)
    assert (len(taken.expired), sub.outbox.size) == (1, 0)


def test_what_is_aside_goes_first_and_the_cursor_does_not_wait_for_it() -> None:
    sub = session()
    offer(sub, *numbered(1, first=8))
    aside(sub, *numbered(1, first=2))
    first, then = sub.supply.take(0, ALL).outgoing, sub.supply.take(0, ALL).outgoing
    assert payloads([*first, *then]) == [b"2", b"8"]
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
    sub.supply.take(0, ALL)
    stored = [p.document for p in sub.take_changes() if isinstance(p, Put)]
    sub.in_flight.puback([1, 2, 3])
    commit(sub)
    sub.supply.take(0, ALL)
    places = {s.filter: s.start_offset for s in stored if isinstance(s, SubscriptionDocument)}
    assert places == {"t": 1, "#": 71}, "what was to be stored has not moved on meanwhile"
    assert (replay.start_offset, other.start_offset) == (4, 71)


def test_what_waits_of_a_replay_goes_when_the_subscription_is_made_anew_or_ended() -> None:
    sub = session()
    sub.subscribe(subscription("t", replaying=True))
    aside(sub, *numbered(2), replay="t")
    aside(sub, *numbered(1, first=9))
    sub.subscribe(subscription("t", replaying=True))
    assert payloads(list(sub.supply.aside)) == [b"9"]
    aside(sub, *numbered(2), replay="t")
    sub.unsubscribe("t")
    assert payloads(list(sub.supply.aside)) == [b"9"]


def test_what_a_group_leased_goes_back_to_it() -> None:
    """First what is not acknowledged, then what waits; not what another group leased."""
    sub = session(window=2)
    entries = numbered(4)
    for number, group in enumerate(("a", "b", "a", "b"), 1):
        sub.supply.offer_aside([(entries[number - 1], Grant(1, lease=Lease(group, number)))])
    sub.supply.take(0, ALL)
    assert sub.supply.waiting_leases("b") == [Lease("b", 4)]
    assert payloads(list(sub.supply.aside)) == [b"3"]
    assert sub.supply.waiting_leases("a") == [Lease("a", 3)]
    assert sub.in_flight.return_leases() == [Lease("a", 1), Lease("b", 2)]
    assert (len(sub.supply.aside), len(sub.in_flight), sub.in_flight.room()) == (0, 0, 2)


def test_the_outbox_waits_while_retained_messages_are_read() -> None:
    """Or the older message of a topic could come after the newer."""
    sub = session()
    sub.subscribe(subscription("#", retained_through=5))
    offer(sub, *numbered(1, first=9))
    sub.owed.begin_read()
    assert not sub.supply.take(0, ALL).outgoing
    sub.owed.offer([kept("t", 3)], last_part=True)
    both = sub.supply.take(0, ALL).outgoing + sub.supply.take(0, ALL).outgoing
    assert [m.offset for m, _ in both] == [3, 9]


def test_what_waits_is_replaced_when_retained_messages_are_read_again() -> None:
    """As for another subscription, made while those of the first wait: nothing comes twice."""
    sub = session()
    sub.subscribe(subscription("a", retained_through=9))
    offer_kept(sub, [kept("a", 3)])
    sub.supply.offer_aside([(message("from $SYS"), Grant(0, retained=True))])
    sub.subscribe(subscription("#", retained_through=9))
    offer_kept(sub, [kept("b", 2), kept("a", 3)])
    both = sub.supply.take(0, ALL).outgoing + sub.supply.take(0, ALL).outgoing
    assert [m.offset for m, _ in both] == [0, 2, 3]


def test_a_retained_message_that_expires_while_it_waits_is_not_owed_for_ever() -> None:
    sub = session()
    sub.subscribe(subscription("a", retained_through=9))
    offer_kept(sub, [message(topic="a", offset=3, retain=True, expires_at_us=5)])
    taken = sub.supply.take(6, ALL)
    assert (len(taken.outgoing), len(taken.expired), owing(sub)) == (0, 1, [])
