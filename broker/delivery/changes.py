"""Changes: subscriptions begin, change and end at a place in the order of arrival.

    SUBSCRIBE ─▶ committed: its place is known ─▶ all before it is routed ─▶ in effect ─▶ SUBACK

A SUBSCRIBE or UNSUBSCRIBE that arrives after a PUBLISH does not count for that message, though it
is not committed or not routed yet; it counts for the next one. So routes change between two
messages of a batch, and no message that came before a subscription is sent as a live one. If
nothing is on its way, a change takes effect at once.

The session itself has the subscription from its arrival on: what it still has to read from the log
goes by its subscriptions as they are then.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right, insort
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from operator import attrgetter
from typing import Protocol

from broker.delivery.readers import ReaderKey, Replay
from broker.delivery.routes import RouteTable, work_of
from broker.documents import NOT_YET, Delete, Operation, Place, Put, SubscriptionDocument
from broker.errors import StoreError
from broker.log.batch import OnCommitted
from broker.log.log import Log
from broker.message import Message, Offset
from broker.session.position import LivePosition
from broker.session.session import Session
from broker.topics import is_shared, matches

CHANGED_PER_TURN = 500
"""Topic Filters whose routes change in one turn of the loop: about 5 ms."""
ROUTED_AT_ONCE_MAX = 2000
"""Messages that are routed in one turn of the loop: about 10 ms."""
PASSED_AT_ONCE_MAX = 20_000
"""The same for messages that were handed on before, of which most are passed over."""
LOOKED_THROUGH_MAX = 1000
"""Topic Filters of changes not in effect yet, beyond which every topic counts as wanted."""


class Routing(Protocol):
    """What changes with the subscriptions: delivery."""

    live: LivePosition

    def stop(self, session: Session, key: ReaderKey) -> None:
        """Stop this reader of the session, if there is one."""
        ...

    def change_route(
        self, session: Session, topic_filter: str, subscription: SubscriptionDocument | None
    ) -> None:
        """From here on route to this subscription; None: to no subscription with this filter."""
        ...

    def hold(self, session: Session) -> None:
        """A change of its subscriptions came: what comes after that waits until it is in effect."""
        ...

    def let_go(self, session: Session) -> None:
        """Such a change is in effect."""
        ...

    def failed(self, session: Session, error: Exception) -> None:
        """The session cannot be served on. Raises nothing."""
        ...


class Groups(Protocol):
    """The groups of Shared Subscriptions: what is for one goes to its own session."""

    def members(self, name: str) -> tuple[Session, set[Session]] | None:
        """The session of a group, and its members; None: it has none."""
        ...


@dataclass(slots=True)
class Change:
    """What a SUBSCRIBE or UNSUBSCRIBE, or a part of one, changes for its session."""

    session: Session
    in_effect: OnCommitted
    subscriptions: dict[str, SubscriptionDocument | None] = field(default_factory=dict)
    """By Topic Filter: the subscription from here on; None: there is none any more."""
    place: Place = field(default_factory=Place)
    holds: bool = False
    """Whether its session waits for it: not if it was made in an earlier connection."""


_offset_of: Callable[[Message], Offset] = attrgetter("offset")


def place_of(change: Change) -> Offset:
    return change.place.offset


class Changes:
    """The changes that are committed and not in effect, in their order."""

    def __init__(self, log: Log, routing: Routing) -> None:
        self._log = log
        self._routing = routing
        self.groups: Groups | None = None
        """None as long as there are none."""
        self.waiting: deque[Change] = deque()
        self._changed_in_turn = 0

    def subscribe(
        self,
        session: Session,
        subscriptions: Iterable[SubscriptionDocument],
        in_effect: OnCommitted,
    ) -> None:
        """Add or replace these, behind everything that arrived before. They begin there if their
        start is NOT_YET. `in_effect` is called then, or with the StoreError that ended the log.
        """
        change = Change(session, in_effect)
        operations: list[Operation] = []
        for subscription in subscriptions:
            self._routing.stop(session, (Replay, subscription.filter))
            places = session.grants.inherit(subscription, change.place)
            session.subscribe(subscription, places)
            change.subscriptions[subscription.filter] = subscription
            # A copy: a replay changes the other while this is written.
            operations.append(Put(replace(subscription), places=places))
        self._commit(change, operations)

    def unsubscribe(
        self, session: Session, topic_filters: Iterable[str], in_effect: OnCommitted
    ) -> None:
        """Remove these subscriptions, in order as `subscribe`."""
        change = Change(session, in_effect)
        operations: list[Operation] = []
        for topic_filter in topic_filters:
            self._routing.stop(session, (Replay, topic_filter))
            session.unsubscribe(topic_filter)
            change.subscriptions[topic_filter] = None
            operations.append(Delete(SubscriptionDocument, (session.client_id, topic_filter)))
        self._commit(change, operations)

    def expect(self, session: Session, subscription: SubscriptionDocument) -> None:
        """One whose start was not routed yet. If it has none yet, its own change is on its way."""
        start = subscription.start_offset
        if start != NOT_YET:
            known = Change(session, _nobody_asked, place=Place(offset=start))
            known.subscriptions[subscription.filter] = subscription
            insort(self.waiting, known, key=place_of)

    def _commit(self, change: Change, operations: Sequence[Operation]) -> None:
        """With the session's cursor: from here on the session is owed what comes."""

        def committed(error: StoreError | None) -> None:
            if error is not None:
                change.in_effect(error)
                return
            self.waiting.append(change)
            self.routed()

        session, place = change.session, change.place
        if change.subscriptions:
            change.holds = True
            self._routing.hold(session)
        failed = partial(self._routing.failed, session)
        if session.durable and operations:
            self._log.append([], committed, failed, operations=operations, place=place)
            self._log.changed(session)
        else:
            self._log.find(place, committed, failed)

    def mark(self, session: Session) -> asyncio.Future[Offset]:
        """The place behind everything that arrived so far: known when all before it is in effect.
        Raises StoreError."""
        known: asyncio.Future[Offset] = asyncio.get_running_loop().create_future()

        def in_effect(error: StoreError | None) -> None:
            if known.done():
                return
            if error is None:
                known.set_result(place.offset)
            else:
                known.set_exception(error)

        place = Place()  # `in_effect` knows no more of its change, or the two were a cycle.
        self._commit(Change(session, in_effect, place=place), ())
        return known

    def routed(self) -> None:
        """More messages were routed: let the changes that waited for that take effect."""
        while self._is_due() and self._changed_in_turn < CHANGED_PER_TURN:
            if not self._changed_in_turn:
                asyncio.get_running_loop().call_soon(self._next_turn)
            change = self.waiting.popleft()
            self._changed_in_turn += max(1, sum(map(work_of, change.subscriptions)))
            self._take_effect(change)

    def _take_effect(self, change: Change) -> None:
        session = change.session
        try:
            for topic_filter, subscription in change.subscriptions.items():
                self._routing.change_route(session, topic_filter, subscription)
            for subscription in session.grants.fill_in(change.place, change.subscriptions):
                session.owed.subscribed(subscription)
            change.in_effect(None)
            if change.holds:
                self._routing.let_go(session)
        except Exception as error:
            self._routing.failed(session, error)

    def _next_turn(self) -> None:
        self._changed_in_turn = 0
        self.routed()

    def _is_due(self) -> bool:
        return bool(self.waiting) and place_of(self.waiting[0]) <= self._routing.live.through

    async def split(self, batch: Sequence[Message]) -> AsyncIterator[Sequence[Message]]:
        """The parts of a batch, to be routed one after the other: changes take effect between, and
        what other clients want in the meantime is done."""
        begin = 0
        while begin < len(batch):
            full = end = self._part(batch, begin)
            place = await self._next_place()
            if place is not None and place < batch[end - 1].offset:
                end = bisect_right(batch, place, lo=begin, key=_offset_of)
            if end > begin:
                yield batch[begin:end]
            else:
                assert place is not None
                self._routing.live.advance(place)  # There is no message up to there.
            if end == full:
                await asyncio.sleep(0)
            begin = end

    def _part(self, batch: Sequence[Message], begin: int) -> int:
        """Where the part that begins there ends, if no change comes before."""
        first = batch[begin].offset
        for part in self._routing.live.ahead.parts:
            if part.first <= first <= part.last:
                end = bisect_right(batch, part.last, lo=begin, key=_offset_of)
                return min(end, begin + PASSED_AT_ONCE_MAX)
        return min(begin + ROUTED_AT_ONCE_MAX, len(batch))

    async def _next_place(self) -> Offset | None:
        """Where the routes change next. First those changes take effect whose turn it is."""
        while self._is_due():
            self.routed()
            await asyncio.sleep(0)
        return place_of(self.waiting[0]) if self.waiting else None

    def is_wanted(self, topic: str, routes: RouteTable) -> bool:
        """Whether anybody is subscribed to the topic when all of these are in effect."""
        if not self.waiting:
            return routes.is_wanted(topic)
        subscribed = routes.subscribed(topic)
        if sum([len(change.subscriptions) for change in self.waiting]) > LOOKED_THROUGH_MAX:
            return True
        left: dict[str, set[Session]] = {}
        for change in self.waiting:
            for topic_filter, subscription in change.subscriptions.items():
                if subscription is None:
                    subscribed.discard((change.session, topic_filter))
                    if is_shared(topic_filter):
                        left.setdefault(topic_filter, set()).add(change.session)
                elif change.session.attached and matches(topic_filter, topic):
                    subscribed.add((change.session, topic_filter))
        for name, sessions in left.items():
            group = None if self.groups is None else self.groups.members(name)
            if group is not None and group[1] <= sessions:
                subscribed -= {(group[0], topic_filter) for topic_filter in group[0].subscriptions}
        return bool(subscribed)


def _nobody_asked(error: StoreError | None) -> None:
    """A change that nobody waits for."""
