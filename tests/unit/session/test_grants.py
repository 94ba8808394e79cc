from __future__ import annotations

import tracemalloc

from broker.documents import NOT_YET, Operation, Place, Put, SubscriptionDocument
from broker.message import Grant, Message, Offset
from broker.session.grants import (
    CACHED_TOPICS_MAX,
    WRITTEN_LATER_MAX,
    SubscriptionSet,
    merge_grants,
)
from tests.support.messages import message
from tests.support.world import subscription


def subscribed(*subscriptions: SubscriptionDocument) -> SubscriptionSet:
    made = SubscriptionSet("sub1")
    for each in subscriptions:
        made.add(each)
    return made


def starts(operations: list[Operation]) -> dict[str, int]:
    """Where the subscriptions begin that are written."""
    documents = [operation.document for operation in operations if isinstance(operation, Put)]
    return {d.filter: d.start_offset for d in documents if isinstance(d, SubscriptionDocument)}


# How a message is granted


def test_overlapping_subscriptions_give_one_copy_with_the_highest_qos_and_all_identifiers() -> None:
    """[MQTT-3.3.4-2, MQTT-3.3.4-3]"""
    grants = subscribed(
        subscription("a/#", 0, identifier=9),
        subscription("a/+", 2, identifier=3),
        subscription("b", 1),
    )
    assert grants.of(message(topic="a/b", offset=1)) == Grant(2, subscription_ids=(3, 9))
    assert grants.of(message(topic="c", offset=1)) is None
    assert merge_grants([]) is None


def test_a_message_from_before_a_subscription_is_not_owed_by_it() -> None:
    grants = subscribed(subscription("a/#", 1, start=5), subscription("a/b", 2, start=7))
    granted = [grants.of(message(topic="a/b", offset=offset)) for offset in (5, 6, 7, 8)]
    assert granted == [None, Grant(1), Grant(1), Grant(2)]


def test_no_local_leaves_out_what_the_client_published_itself() -> None:
    """[MQTT-3.8.3-3]"""
    grants = subscribed(subscription("a/#", 2, no_local=True), subscription("a/b", 1))
    assert grants.of(message(topic="a/b", publisher="sub1", offset=1)) == Grant(1)
    assert grants.of(message(topic="a/c", publisher="sub1", offset=2)) is None
    assert grants.of(message(topic="a/c", publisher="other", offset=3)) == Grant(2)


def marked(grants: SubscriptionSet, *messages: Message) -> list[int]:
    outgoing = [(each, Grant(1)) for each in messages]
    grants.mark_caught_up(outgoing)
    return [each.offset for each, grant in outgoing if grant.caught_up]


def test_the_first_live_message_of_a_replay_is_marked_once() -> None:
    grants = subscribed(
        subscription("a/+", start=5), subscription("b", start=6, no_local=True), subscription("#")
    )
    for topic_filter in ("a/+", "b"):
        grants.replay_joined(topic_filter)
    own = message(topic="b", offset=8, publisher="sub1")
    assert marked(grants, message(topic="a/b", offset=5), message(topic="c", offset=7), own) == []
    assert marked(grants, *[message(topic="a/b", offset=n) for n in (9, 10)]) == [9]
    assert [*grants.joined] == ["b"]
    assert marked(grants, *[message(topic="b", offset=n) for n in (11, 12)]) == [11]
    assert not grants.joined


def test_what_is_replayed_anew_or_unsubscribed_has_no_live_message_to_mark() -> None:
    grants = subscribed(subscription("a"), subscription("b"))
    for topic_filter in ("a", "b"):
        grants.replay_joined(topic_filter)
    grants.add(subscription("a", replaying=True))
    grants.remove("b")
    assert not grants.joined


def test_a_subscription_that_replays_is_owed_nothing_by_the_session_itself() -> None:
    grants = subscribed(subscription("t", replaying=True))
    assert grants.of(message(offset=9)) is None
    assert [s.filter for s in grants.matching("t")] == ["t"]


def test_a_shared_subscription_grants_nothing_to_the_session_itself() -> None:
    grants = subscribed(subscription("$share/g/t"))
    assert [*grants.by_filter] == ["$share/g/t"]
    assert grants.of(message(topic="t", offset=1)) is None
    assert grants.of(message(topic="$share/g/t", offset=1)) is None


def test_a_grant_changes_with_the_subscriptions() -> None:
    """[MQTT-3.8.4-3, MQTT-3.10.4-2] However often the topic was asked for before."""
    grants = subscribed(subscription("t", 0))
    granted = [grants.of(message(offset=1))]
    grants.add(subscription("#", 1))
    granted.append(grants.of(message(offset=1)))
    grants.add(subscription("#", 2))
    granted.append(grants.of(message(offset=1)))
    assert grants.remove("#") is not None
    granted.append(grants.of(message(offset=1)))
    assert grants.remove("#") is None
    assert granted == [Grant(0), Grant(1), Grant(2), Grant(0)]


def test_more_topics_than_are_remembered_are_granted_all_the_same() -> None:
    grants = subscribed(subscription("+", 1, start=1))
    for number in range(CACHED_TOPICS_MAX + 2):
        assert grants.of(message(topic=str(number), offset=2)) == Grant(1)
    assert grants.of(message(topic="0", offset=1)) is None


def test_what_is_remembered_of_topics_is_bounded_in_bytes_and_forgotten_when_caught_up() -> None:
    """P7: each session that had caught up kept 2.8 MB."""
    grants = subscribed(subscription("#", 1))
    tracemalloc.start()
    for number in range(2000):
        grants.of(message(topic=f"{number:04}".ljust(4000), offset=2))
    size, _ = tracemalloc.get_traced_memory()
    assert 1 << 19 < size < 3 << 20
    grants.forget()
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size < 1 << 16
    assert grants.of(message(topic="0", offset=2)) == Grant(1)


# What the next commit writes


def test_of_replays_those_are_written_that_went_on() -> None:
    grants = subscribed(*(subscription(name, replaying=True) for name in ("a", "b", "c")))
    grants.replayed("a", Offset(0))
    grants.replayed("b", Offset(4))
    grants.replayed("c", Offset(7))
    written = grants.take_changes()
    grants.replayed("b", Offset(5))
    assert starts(written) == {"b": 4, "c": 7}, "what is written has not moved on meanwhile"
    assert starts(grants.take_changes()) == {"b": 5}
    assert grants.take_changes() == []


def test_what_was_not_stored_is_written_again() -> None:
    grants = subscribed(subscription("a"), subscription("b"), subscription("c"))
    grants.write_next(["a"])
    grants.write_later(["b"])
    grants.take_changes()
    grants.write_next(["c"])
    grants.not_committed()
    assert starts(grants.take_changes()).keys() == {"a", "b", "c"}
    assert grants.take_changes() == []


def test_of_many_that_can_wait_few_are_written_with_each_commit() -> None:
    filters = [str(number) for number in range(WRITTEN_LATER_MAX + 2)]
    grants = subscribed(*map(subscription, filters))
    grants.write_later(filters)
    grants.write_next(["0"])
    first = starts(grants.take_changes())
    assert len(first) == WRITTEN_LATER_MAX
    assert "0" in first
    second = starts(grants.take_changes())
    assert first.keys() | second.keys() == set(filters)
    assert grants.take_changes() == []


def test_what_is_unsubscribed_is_not_written_any_more() -> None:
    """Or it would come back with the commit after the one that removes it."""
    grants = subscribed(subscription("a"), subscription("b"), subscription("c"))
    grants.write_next(["a"])
    grants.take_changes()
    grants.write_next(["b"])
    grants.write_later(["c"])
    for topic_filter in ("a", "b", "c"):
        grants.remove(topic_filter)
    grants.not_committed()
    assert grants.take_changes() == []


def test_a_subscription_replays_until_it_is_made_without() -> None:
    grants = subscribed(subscription("a", replaying=True), subscription("b"))
    assert [grants.is_replaying(name) for name in ("a", "b", "c")] == [True, False, False]
    grants.add(subscription("a"))
    assert not grants.is_replaying("a")


def test_subscriptions_that_begin_later_begin_where_the_session_goes_on() -> None:
    grants = subscribed(
        subscription("early", start=3),
        subscription("late", start=9),
        subscription("replays", start=2, replaying=True),
        subscription("ends", start=9, until=20, replaying=True),
        subscription("$share/g/t", start=9),
    )
    grants.add(subscription("unplaced", start=NOT_YET), {"start_offset": Place()})
    assert [s.filter for s in grants.begin_at(Offset(5))] == ["replays"]
    assert grants.of(message(topic="late", offset=6)) is not None
    assert starts(grants.take_changes()) == {"late": 5, "replays": 2}
    assert grants.by_filter["ends"].start_offset == 9
    assert grants.by_filter["unplaced"].start_offset == NOT_YET


def test_how_many_patterns_of_wildcards_there_are() -> None:
    """Each counts until its last filter is removed; replacing a filter changes nothing."""
    grants = SubscriptionSet("sub1")
    for topic_filter in ("a", "a/+", "b/+", "b/+", "$share/g/+/c"):
        grants.add(subscription(topic_filter))
    assert not grants.has_patterns(1, "c/+")
    assert not grants.has_patterns(1, "c")
    assert grants.has_patterns(1, "+/c")
    assert not grants.has_patterns(2, "+/c")
    assert not grants.has_patterns(2, "+/c", ["a/+", "+/d", "$share/g/#", "x"])
    assert grants.has_patterns(2, "#", ["a/+", "+/d"])
    grants.remove("b/+")
    assert grants.has_patterns(1, "+/c")
    grants.remove("a/+")
    grants.remove("a/+")
    assert not grants.has_patterns(1, "+/c")
