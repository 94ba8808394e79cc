from __future__ import annotations

from dataclasses import replace

from broker.documents import Put, SubscriptionDocument
from broker.message import Message, Outgoing
from broker.session.grants import SubscriptionSet
from broker.session.owed import OwedRetained
from tests.support.messages import message
from tests.support.world import subscription


class Owing:
    """The subscriptions of a session, and what retained messages they are owed."""

    def __init__(self, *subscriptions: SubscriptionDocument) -> None:
        self.grants = SubscriptionSet("sub1")
        self.owed = OwedRetained("sub1", self.grants)
        for each in subscriptions:
            self.subscribe(each)

    def subscribe(self, document: SubscriptionDocument) -> None:
        self.grants.add(document)
        self.owed.subscribed(document)

    def unsubscribe(self, topic_filter: str) -> None:
        self.owed.unsubscribed(topic_filter)
        self.grants.remove(topic_filter)

    def offer(self, messages: list[Message], *, last_part: bool) -> list[Outgoing]:
        """What waits then."""
        self.owed.offer(messages, last_part=last_part)
        return list(self.owed.waiting)

    def filters(self) -> list[str]:
        return [subscription.filter for subscription in self.owed.subscriptions()]

    def written(self) -> dict[str, tuple[int, int]]:
        """What is owed of retained messages, as the next commit stores it."""
        return {
            put.document.filter: put.document.owed_retained
            for put in self.grants.take_changes()
            if isinstance(put, Put) and isinstance(put.document, SubscriptionDocument)
        }


def kept(topic: str, offset: int, publisher: str = "pub1") -> Message:
    return message(topic=topic, offset=offset, publisher=publisher, retain=True)


def test_overlapping_subscriptions_get_one_copy_of_what_is_retained() -> None:
    """[MQTT-3.3.1-9, MQTT3-3.3.1-8]"""
    owing = Owing(
        subscription("a/+", 0, identifier=1, retained_through=9),
        subscription("a/1", 2, identifier=2, retained_through=9),
    )
    owing.owed.begin_read()
    outgoing = owing.offer([kept("a/1", 3), kept("a/2", 5)], last_part=True)
    assert [(m.offset, g.qos, g.subscription_ids, g.retained) for m, g in outgoing] == [
        (3, 2, (1, 2), True),
        (5, 0, (1,), True),
    ]


def test_retained_are_only_those_from_before_the_subscription_was_made() -> None:
    """[MQTT-3.8.4-3] Made again it gets all again, wherever it began; later ones are live."""
    owing = Owing(subscription("#", start=1, retained_through=4))
    owing.owed.begin_read()
    outgoing = owing.offer([kept("a", 1), kept("b", 4), kept("c", 5)], last_part=True)
    assert [m.offset for m, _ in outgoing] == [1, 4]


def test_no_local_leaves_out_what_is_retained_of_the_client_itself() -> None:
    owing = Owing(subscription("#", no_local=True, retained_through=9))
    owing.owed.begin_read()
    messages = [kept("a", 1, publisher="sub1"), kept("b", 2)]
    assert [m.offset for m, _ in owing.offer(messages, last_part=True)] == [2]


def test_what_is_owed_goes_on_after_what_was_handed_on() -> None:
    owing = Owing(
        subscription("a/+", retained_through=90),
        subscription("b", retained_through=90),
    )
    messages = [kept("a/1", 3), kept("b", 5), kept("a/2", 7)]
    owing.owed.begin_read()
    owing.offer(messages, last_part=True)
    assert owing.written() == {}
    owing.owed.handed_on(messages[:2])
    assert owing.written() == {"a/+": (3, 7), "b": (5, 5)}
    assert owing.filters() == ["a/+"]
    owing.owed.begin_read()
    assert [m.offset for m, _ in owing.offer(messages, last_part=True)] == [7]


def test_who_is_found_to_be_owed_nothing_is_written_when_there_is_room() -> None:
    owing = Owing(*(subscription(name, retained_through=9) for name in ("a", "b")))
    owing.owed.begin_read()
    owing.offer([kept("a", 3)], last_part=True)
    assert owing.filters() == ["a"]
    assert owing.written() == {"b": (0, 0)}


def test_a_read_does_not_count_for_a_subscription_made_since_it_began() -> None:
    """P3: what lies before was not read for that one, and it is not over when the reading is."""
    owing = Owing(subscription("a", retained_through=9))
    owing.owed.begin_read()
    owing.subscribe(subscription("#", retained_through=9))
    outgoing = owing.offer([kept("a", 3)], last_part=True)
    assert [g.subscription_ids for _, g in outgoing] == [()]
    owing.owed.handed_on([kept("a", 3)])
    assert owing.filters() == ["#"]
    assert owing.written() == {"a": (3, 3)}
    owing.owed.begin_read()
    outgoing = owing.offer([kept("b", 2), kept("a", 3)], last_part=True)
    assert [m.offset for m, _ in outgoing] == [2, 3]


def test_what_is_read_in_parts_is_owed_until_the_last_was_offered_and_handed_on() -> None:
    owing = Owing(subscription("#", retained_through=5))
    owing.owed.begin_read()
    parts = [kept("a", 1), kept("b", 2)], [kept("c", 5)]
    owing.offer(parts[0], last_part=False)
    owing.owed.handed_on(parts[0])
    assert owing.owed.reading
    assert owing.written() == {"#": (2, 5)}
    owing.offer(parts[1], last_part=True)
    assert not owing.owed.reading
    assert owing.written() == {}
    owing.owed.handed_on(parts[1])
    assert owing.written() == {"#": (5, 5)}
    assert owing.filters() == []


def test_a_subscription_repeated_while_retained_messages_are_read_goes_on_with_them() -> None:
    """With Retain Handling 1 or 2 it is owed what it was; nothing of it comes twice."""
    owing = Owing(subscription("#", retained_through=9))
    owing.owed.begin_read()
    owing.offer([kept("a", 1)], last_part=False)
    owing.subscribe(replace(owing.grants.by_filter["#"], qos=0))
    owing.owed.handed_on([kept("a", 1)])
    outgoing = owing.offer([kept("b", 2)], last_part=True)
    assert [(m.offset, g.qos) for m, g in outgoing] == [(2, 0)]
    owing.owed.handed_on([kept("b", 2)])
    assert owing.written() == {"#": (2, 2)}


def test_who_unsubscribed_or_subscribed_otherwise_is_owed_nothing_that_is_retained() -> None:
    """The subscription must not come back by what is stored with the cursor."""
    owing = Owing(subscription("a", retained_through=9))
    owing.owed.begin_read()
    owing.offer([kept("a", 3)], last_part=True)
    owing.subscribe(subscription("b", retained_through=9))
    owing.unsubscribe("a")
    owing.subscribe(subscription("b"))
    assert owing.filters() == []
    assert owing.written() == {}


def test_who_leaves_while_retained_messages_are_read_is_still_owed_the_rest() -> None:
    owing = Owing(subscription("#", retained_through=5))
    owing.owed.begin_read()
    owing.offer([kept("a", 1)], last_part=False)
    owing.owed.handed_on([kept("a", 1)])
    owing.owed.stop_read()
    assert not owing.owed.reading
    assert [s.filter for s in owing.owed.begin_read()] == ["#"]
    outgoing = owing.offer([kept("a", 1), kept("b", 2)], last_part=True)
    assert [m.offset for m, _ in outgoing] == [2]
