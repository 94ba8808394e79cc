"""Owed: the retained messages that subscriptions of one session are still to get.

A subscription is owed the matching messages that were retained when it was made: those above its
`retained_after`, at or below its `retained_through`. They are read from the log in parts:

    begin_read ──▶ offer, offer, offer (the last part) ──▶ waiting ──▶ taken: handed_on

`retained_after` moves with what is taken and is stored with the Packet Identifiers of that. So
whoever leaves before the end is still owed the rest, and nothing of it comes twice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import replace

from broker.documents import SubscriptionDocument
from broker.message import Grant, Message, Offset, Outgoing
from broker.session.grants import SubscriptionSet, merge_grants

_NOTHING: deque[Outgoing] = deque(maxlen=0)
"""One for all sessions, since nearly none waits for anything: an empty deque is 0.7 KB."""


class OwedRetained:
    """Which subscriptions are owed retained messages."""

    def __init__(self, client_id: str, subscriptions: SubscriptionSet) -> None:
        self.reading = False
        """A read has begun, and its last part was not offered yet."""
        self.waiting = _NOTHING
        """The part that was offered last and is not taken, in the order of the log."""
        self._client_id = client_id
        self._subscriptions = subscriptions
        self._owing: dict[str, SubscriptionDocument] = {}
        """The subscriptions that may be owed any, by Topic Filter."""
        self.unread: set[str] = set()
        """Topic Filters subscribed since the last read began. That read does not count for them;
        they need another one."""

    def subscribed(self, subscription: SubscriptionDocument) -> None:
        """This subscription was made, or made again."""
        former = self._owing.pop(subscription.filter, None)
        if subscription.owes_retained(subscription.retained_through):
            self._owing[subscription.filter] = subscription
            if former is None or former.owed_retained != subscription.owed_retained:
                self.unread.add(subscription.filter)

    def unsubscribed(self, topic_filter: str) -> None:
        """This subscription is over, and nothing is owed to it any more."""
        self._owing.pop(topic_filter, None)
        self.unread.discard(topic_filter)

    def subscriptions(self) -> list[SubscriptionDocument]:
        """The subscriptions that may be owed retained messages."""
        return list(self._owing.values())

    def begin_read(self) -> list[SubscriptionDocument]:
        """Read anew what is retained, for the subscriptions that may be owed it now. What waits
        comes again."""
        self.unread.clear()
        self.waiting = _NOTHING
        self.reading = True
        return self.subscriptions()

    def stop_read(self) -> None:
        """The client is gone: no more is offered."""
        self.reading = False
        self.waiting = _NOTHING

    def offer(self, messages: Iterable[Message], *, last_part: bool) -> None:
        """These are the next that are retained on the topics of `begin_read`, in the order of the
        log: let those wait that a subscription is owed. What was offered before is taken.

        One copy of each, however many subscriptions match. [MQTT-3.3.1-9]
        """
        outgoing: list[Outgoing] = []
        last: dict[str, Offset] = {}
        grants: dict[tuple[str, ...], Grant] = {}
        for message in messages:
            wanting = [
                s
                for s in self._waiting_for(message)
                if not (s.no_local and message.publisher == self._client_id)
            ]
            if wanting:
                filters = tuple([s.filter for s in wanting])
                if (grant := grants.get(filters)) is None:
                    grant = grants[filters] = _retained(wanting)
                outgoing.append((message, grant))
                last |= dict.fromkeys(filters, message.offset)
        if last_part:
            self._end_read(last)
        self.waiting = deque(outgoing) if outgoing else _NOTHING

    def _end_read(self, last: dict[str, Offset]) -> None:
        """From now on each subscription is owed what waits, through the last offset in `last`."""
        self.reading = False
        done = []
        for topic_filter, subscription in self._owing.items():
            if topic_filter not in self.unread:
                through = last.get(topic_filter, subscription.retained_after)
                subscription.retained_through = through
                if topic_filter not in last:
                    done.append(topic_filter)
        for topic_filter in done:
            del self._owing[topic_filter]
        # If that is lost, the next connection finds once more that there is nothing.
        self._subscriptions.write_later(done)

    def handed_on(self, messages: Sequence[Message]) -> None:
        """These were taken, in the order of the log: the subscriptions that waited for them wait
        for the next ones. Only the last one of each counts."""
        moved: dict[str, None] = {}
        waiting = self._owing.keys() - self.unread
        for message in reversed(messages):
            if not waiting:
                break
            for subscription in self._waiting_for(message):
                if subscription.filter in waiting:
                    waiting.discard(subscription.filter)
                    moved[subscription.filter] = None
                    subscription.retained_after = message.offset
                    if message.offset == subscription.retained_through:
                        self._owing.pop(subscription.filter, None)
        self._subscriptions.write_next(moved)

    def _waiting_for(self, message: Message) -> list[SubscriptionDocument]:
        """The subscriptions that still wait for this retained message."""
        return [
            s
            for s in self._subscriptions.matching(message.topic)
            if s.owes_retained(message.offset) and s.filter not in self.unread
        ]


def _retained(wanting: Iterable[SubscriptionDocument]) -> Grant:
    grant = merge_grants(wanting)
    assert grant is not None, "somebody wants it"
    return replace(grant, retained=True)
