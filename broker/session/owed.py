"""Owed: the retained messages that subscriptions of one session are still to get.

A subscription is owed the matching messages that were retained when it was made: those above its
`retained_after`, at or below its `retained_through`. They are read from the log in parts:

    begin_read ──▶ offer, offer, offer (the last part) ──▶ waiting ──▶ taken: handed_on

`retained_after` moves with what is taken and is stored with the Packet Identifiers of that. So
whoever leaves before the end is still owed the rest, and nothing of it comes twice.

Many take seconds, and so does the search for them, so live messages go in between: on a topic when
its retained message has gone, which therefore may go first (`ahead`). Those come twice to whoever
leaves before the end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import islice

from broker.documents import BEFORE_ALL, SubscriptionDocument
from broker.message import Grant, Message, Offset, Outgoing
from broker.session.grants import SubscriptionSet, merge_grants
from broker.session.in_flight import OFFSET_MAX

BLOCKING_MAX = 100
"""Live messages whose topics are looked for at a time."""
AHEAD_MAX = 10_000
"""Beyond so many topics, live messages on others wait until all is read."""

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
        self.ahead: set[str] | None = None
        """While many are read: topics on which nothing is owed any more. None: what is owed and
        what is live goes in the order of the log."""
        self._older_through = BEFORE_ALL
        self.offers_ahead = False
        """What waits goes before its turn."""
        self.unread: dict[str, None] = {}
        """Topic Filters subscribed since the last read began. That read does not count for them;
        they need another one."""

    def subscribed(self, subscription: SubscriptionDocument) -> None:
        """This subscription was made, or made again."""
        former = self._owing.pop(subscription.filter, None)
        if subscription.owes_retained(subscription.retained_through):
            self._owing[subscription.filter] = subscription
            if former is None or former.owed_retained != subscription.owed_retained:
                self.unread[subscription.filter] = None

    def unsubscribed(self, topic_filter: str) -> None:
        """This subscription is over, and nothing is owed to it any more."""
        self._owing.pop(topic_filter, None)
        self.unread.pop(topic_filter, None)

    def subscriptions(self) -> list[SubscriptionDocument]:
        """The subscriptions that may be owed retained messages."""
        return list(self._owing.values())

    def begin_read(self) -> list[SubscriptionDocument]:
        """Read anew what is retained, for the subscriptions that may be owed it now. What waits
        comes again."""
        self.unread.clear()
        self.stop_read()
        self.reading = True
        return self.subscriptions()

    def stop_read(self) -> None:
        """The client is gone: no more is offered."""
        self.reading = self.offers_ahead = False
        self.waiting = _NOTHING
        self.ahead = None

    def offer(self, messages: Iterable[Message], *, last_part: bool) -> None:
        """These are the next that are retained on the topics of `begin_read`, in the order of the
        log: let those wait that a subscription is owed. What was offered before is taken.

        One copy of each, however many subscriptions match. [MQTT-3.3.1-9]
        """
        outgoing: list[Outgoing] = []
        last: dict[str, Offset] = {}
        grants: dict[tuple[str, ...], Grant] = {}
        for message in messages:
            if self.ahead is not None and message.topic in self.ahead:
                continue  # It has gone, or a newer one has.
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
        self.ahead = None
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
        if self.offers_ahead:
            return
        moved: dict[str, None] = {}
        waiting = self._owing.keys() - self.unread.keys()
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

    def withhold(self, may_receive: Callable[[str], bool]) -> int:
        """Take out what may not be received any more: how many."""
        kept = deque([entry for entry in self.waiting if may_receive(entry[0].topic)])
        withheld = len(self.waiting) - len(kept)
        if withheld:
            self.waiting = kept or _NOTHING
            if not self.reading:
                last: dict[str, Offset] = {}
                for message, _ in kept:
                    last |= {s.filter: message.offset for s in self._waiting_for(message)}
                self._end_read(last)
        return withheld

    def let_live_between(self, older_through: Offset = BEFORE_ALL) -> None:
        """Live messages through `older_through` go first: nothing older is retained there.
        All others are newer than what is read, of which there is much."""
        self.ahead = set()
        self._older_through = older_through

    def offer_ahead(self) -> None:
        """What is offered next goes before its turn, until `gone_ahead`."""
        self.offers_ahead = True

    def gone_ahead(self, topics: Iterable[str]) -> None:
        """On these nothing is owed any more."""
        self.offers_ahead = False
        if self.ahead is not None:
            self.ahead.update(topics)

    def blocking(self, live: Iterable[Outgoing]) -> list[str]:
        """The topics of the first live messages that wait for what is retained there."""
        assert self.ahead is not None
        if len(self.ahead) > AHEAD_MAX:
            return []
        first = [m for m, _ in islice(live, BLOCKING_MAX)]
        return list({m.topic for m in first if m.offset > self._older_through} - self.ahead)

    def free_through(self, live: Iterable[Outgoing]) -> Offset:
        """Through which offset live messages may go."""
        assert self.ahead is not None
        for message, _ in live:
            if message.topic not in self.ahead and message.offset > self._older_through:
                return Offset(message.offset - 1)
        return OFFSET_MAX

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
