"""What waits and may not be read any more is taken out, and everything else stays in its place."""

from __future__ import annotations

from broker.message import Grant, Lease, Outgoing
from broker.security.rights import Rights
from broker.session.session import Session
from broker.session.withholding import readable, withhold
from tests.support.messages import message
from tests.support.rulebook import Rulebook
from tests.support.world import subscription

GRANT = Grant(1)


def outgoing(*topics: str, grant: Grant = GRANT) -> list[Outgoing]:
    return [(message(topic, topic, offset=n), grant) for n, topic in enumerate(topics, 1)]


def topics(entries: list[Outgoing]) -> list[str]:
    return [message.topic for message, _ in entries]


def session_with(*rules: str) -> Session:
    session = Session("sub1", created_at_us=0, start=message("").offset, inflight_max=100)
    session.attach(100, Rights(Rulebook(*rules), "anna", None, "sub1"))
    return session


def test_readable_is_what_may_be_read() -> None:
    entries = outgoing("a", "b")
    assert readable(entries, Rights.ALL) is entries
    rights = session_with("allow subscribe a").grants.rights
    assert topics(readable(entries, rights)) == ["a"]


def test_the_outbox_keeps_its_order_its_size_and_what_it_is_to_tell() -> None:
    session = session_with("allow subscribe a")
    entries = outgoing("b", "a", "b", "a", "b")
    entries[2] = (entries[2][0], Grant(1, missing=(range(20, 21),)))
    session.supply.offer(entries, 12345)
    session.outbox.tells = True
    size_of_one = session.outbox.size
    assert withhold(session) == 3
    assert topics([*session.outbox]) == ["a", "a"]
    assert 0 < session.outbox.size < size_of_one
    assert session.outbox.untold == [range(20, 21)], "the next message tells it"
    session.supply.offer(outgoing("a"), 1)
    assert withhold(session) == 0


def test_of_what_is_aside_leases_stay_and_a_replay_needs_its_own_right() -> None:
    session = session_with("allow subscribe #", "allow read-history a", "deny subscribe c")
    lease = Grant(1, lease=Lease("$share/g/#", 1))
    session.subscribe(subscription("#", replaying=True))
    session.supply.offer_aside(
        [
            *outgoing("a", "b", grant=Grant(1, replay="#")),
            *outgoing("b", "c"),
            *outgoing("c", grant=lease),
        ]
    )
    assert withhold(session) == 2
    assert topics([*session.supply.aside]) == ["a", "b", "c"]


def test_what_a_withheld_message_was_to_tell_the_next_one_tells() -> None:
    session = session_with("allow subscribe a")
    session.supply.offer_aside(
        [*outgoing("b", grant=Grant(1, missing=(range(1, 3),))), *outgoing("a"), *outgoing("a")]
    )
    assert withhold(session) == 1
    assert [grant.missing for _, grant in session.supply.aside] == [(range(1, 3),), ()]


def test_retained_messages_that_are_withheld_are_owed_no_more() -> None:
    session = session_with("allow subscribe a", "deny subscribe c")
    for topic_filter in ("a", "c"):
        session.subscribe(subscription(topic_filter, retained_through=9))
    session.owed.begin_read()
    retained = [message(topic, topic, offset=n) for n, topic in ((3, "a"), (5, "c"))]
    session.owed.offer(retained, last_part=True)
    assert len(session.owed.subscriptions()) == 2
    assert withhold(session) == 1
    assert topics([*session.owed.waiting]) == ["a"]
    assert [owing.filter for owing in session.owed.subscriptions()] == ["a"]


def test_nothing_is_taken_out_where_nothing_is_limited() -> None:
    session = Session("sub1", created_at_us=0, start=message("").offset, inflight_max=100)
    session.supply.offer(outgoing("a"), 1)
    assert withhold(session) == 0
    assert len(session.outbox) == 1
