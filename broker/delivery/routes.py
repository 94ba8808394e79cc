"""Routes: which attached sessions get the messages of a topic, and how.

The routes of a topic are found through the tree of all subscriptions, and remembered. A change of
one subscription concerns few topics, but finding these among all remembered ones would take longer
than forgetting all. So all remembered routes become doubtful. When a topic is routed the next time,
its doubtful routes are used if no changed filter matches the topic, else they are found anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import chain, groupby, islice
from typing import TypeVar

from broker import tasks
from broker.delivery.readers import size_of
from broker.documents import SubscriptionDocument
from broker.message import Grant, Message, Outgoing, cost_of
from broker.session.grants import merge_grants
from broker.session.session import Session
from broker.topics import TopicTree

REMEMBERED_MAX = 100_000
REMEMBERED_LENGTH_MAX = 16 << 20
"""Topics whose routes are remembered, and their characters; the first is also the number of
different routes that are kept. Routes keep sessions in memory that have left, but nothing that
waited in them."""
CHANGED_MAX = 256
"""Filters that changed, beyond which all routes, doubtful or interned, are forgotten instead."""

Route = tuple[Session, Grant | None, Grant | None]
"""Session, how it gets others' messages, how it gets its own (they differ by No Local)."""
Routes = tuple[Route, ...]


AT_ONCE_MAX = 1000
"""Subscriptions of one session that are added, or removed, in one turn of the loop: 5 to 10 ms."""
LEVELS_PER_FILTER = 4
"""So many more levels count as one more subscription."""

T = TypeVar("T")


def parts(many: Iterable[T], at_once_max: int) -> Iterator[list[T]]:
    """What one turn of the loop does, of something that is done for each of many."""
    left = iter(many)
    while part := [*islice(left, at_once_max)]:
        yield part


def work_of(topic_filter: str) -> int:
    """What it takes to route to it, or to no longer, in subscriptions of few levels."""
    return 1 + topic_filter.count("/") // LEVELS_PER_FILTER


def parts_by_work(many: Iterable[T], filter_of: Callable[[T], str]) -> Iterator[list[T]]:
    """What one turn of the loop does, of something that is done for each of many subscriptions."""
    part: list[T] = []
    work = 0
    for each in many:
        part.append(each)
        work += work_of(filter_of(each))
        if work >= AT_ONCE_MAX:
            yield part
            part, work = [], 0
    if part:
        yield part


class RouteTable:
    """The subscriptions of attached sessions. Those that replay have no route yet."""

    def __init__(self) -> None:
        self._tree: TopicTree[Session, tuple[Route, SubscriptionDocument]] = TopicTree()
        """Each subscription, with the route of a session that has no other that matches."""
        self._routes: dict[str, Routes] = {}
        self._doubtful: dict[str, Routes] = {}
        """Routes that were remembered before the newest change."""
        self._changed: TopicTree[None, str] = TopicTree()
        """Filters that changed since there were no doubtful routes."""
        self._length = 0
        """Characters of the topics that are remembered."""
        self._interned: dict[Routes, Routes] = {}
        """Each different route once, also those that no topic has any more."""
        self._limited = False
        """Whether there may be sessions that may not read all that they are subscribed to."""
        self._detaching: dict[Session, asyncio.Task[None]] = {}

    def __len__(self) -> int:
        """How many subscriptions there are."""
        return len(self._tree)

    def rights_changed(self, *, limited: bool) -> None:
        """Sessions may read other topics than before. `limited`: and maybe not all."""
        self._limited = limited
        self._forget()

    async def detached(self, session: Session) -> None:
        """Return when `detach` has removed all subscriptions of this session."""
        while (detaching := self._detaching.get(session)) is not None:
            await asyncio.wait([detaching])

    def detach(self, session: Session, failed: Callable[[Exception], None]) -> None:
        """Remove the session's subscriptions, many of them in several turns of the loop."""
        left = parts_by_work([*session.subscriptions], str)
        first = next(left, [])
        for topic_filter in first:
            self.remove(session, topic_filter)
        if len(first) < len(session.subscriptions):
            self._detaching[session] = tasks.start(self._detach(session, left), failed)

    async def _detach(self, session: Session, left: Iterator[list[str]]) -> None:
        try:
            for part in left:
                await asyncio.sleep(0)
                for topic_filter in part:
                    self.remove(session, topic_filter)
        finally:
            del self._detaching[session]

    def add(self, session: Session, subscription: SubscriptionDocument) -> None:
        """Also in place of the session's former one with this filter."""
        route = _route(session, [subscription])
        self._tree.add(subscription.filter, session, (route, subscription))
        self._doubt(subscription.filter)

    def remove(self, session: Session, topic_filter: str) -> None:
        """Of no effect if there is no such subscription."""
        if self._tree.remove(topic_filter, session) is not None:
            self._doubt(topic_filter)

    def of(self, topic: str) -> Routes:
        """Topics with equal routes get the same object. Hot: `benchmarks.scale --only filters`."""
        routes = self._routes.get(topic)
        if routes is None:
            routes = self._doubtful.pop(topic, None)
            if routes is None or self._changed.match(topic):
                routes = self._find(topic)
            remembered = len(self._routes) + len(self._doubtful)
            if (
                max(remembered, len(self._interned)) >= REMEMBERED_MAX
                or self._length > REMEMBERED_LENGTH_MAX
            ):
                self._forget()
            self._length += len(topic)
            routes = self._routes[topic] = self._interned.setdefault(routes, routes)
        return routes

    def is_wanted(self, topic: str) -> bool:
        """Whether there is any subscription that matches."""
        return bool(self.of(topic) or self._tree.match(topic))

    def subscribed(self, topic: str) -> set[tuple[Session, str]]:
        """The sessions that are subscribed, each with its Topic Filters that match."""
        return {(route[0], found.filter) for route, found in self._tree.match(topic)}

    def _find(self, topic: str) -> Routes:
        matching = self._tree.match(topic)
        if not matching:
            return ()
        found = [entry for entry in matching if not entry[1].replaying]
        if self._limited:
            found = [entry for entry in found if entry[0][0].grants.rights.may_receive(topic)]
        routes = [route for route, _ in found]
        if len({session for session, _, _ in routes}) < len(routes):
            subscriptions: dict[Session, list[SubscriptionDocument]] = {}
            for (session, _, _), subscription in found:
                subscriptions.setdefault(session, []).append(subscription)
            routes = [_route(session, matching) for session, matching in subscriptions.items()]
        return tuple(routes)

    def _doubt(self, topic_filter: str) -> None:
        self._doubtful.update(self._routes)
        self._routes.clear()
        if len(self._changed) >= CHANGED_MAX:
            self._forget()
        elif self._doubtful:
            self._changed.add(topic_filter, None, topic_filter)

    def _forget(self) -> None:
        self._length = 0
        self._routes.clear()
        self._doubtful.clear()
        self._changed = TopicTree()
        self._interned.clear()


def _route(session: Session, matching: list[SubscriptionDocument]) -> Route:
    grant = _merged(matching)
    if not any(subscription.no_local for subscription in matching):
        return session, grant, grant
    return session, grant, _merged([s for s in matching if not s.no_local])


def _merged(matching: list[SubscriptionDocument]) -> Grant | None:
    """Equal grants as one object, so that `route` need not compare them."""
    grant = merge_grants(matching)
    if grant is None or len(grant.subscription_ids) > 1:
        return grant
    return _interned(grant)


@lru_cache(maxsize=1000)
def _interned(grant: Grant) -> Grant:
    return grant


def _runs(
    batch: Sequence[Message], routes_of: Callable[[str], Routes]
) -> Iterable[tuple[Routes, Sequence[Message]]]:
    """Messages that follow each other and have the same routes. Each topic is looked up once."""
    if len(batch) == 1:
        return [(routes_of(batch[0].topic), batch)]
    by_topic = {topic: routes_of(topic) for topic in {message.topic for message in batch}}
    if len(by_topic) == 1:
        return zip(by_topic.values(), [batch], strict=True)
    runs = groupby(batch, lambda message: by_topic[message.topic])
    return ((routes, [*run]) for routes, run in runs)


Routed = tuple[list[Outgoing], int]
"""What a session gets of a batch, and its size."""


def route(
    batch: Sequence[Message], routes_of: Callable[[str], Routes], size: int | None = None
) -> dict[Session, Routed]:
    """What each session gets of a batch, in order, and its size. `size` is that of the whole batch,
    where the caller knows it.

    Runs of messages with the same routes are handled together, and all sessions with the same grant
    share the run's entries: one publisher to 100 subscribers builds one list.
    """
    routed: dict[Session, Routed] = {}
    more: dict[Session, list[Routed]] = {}
    for routes, messages in _runs(batch, routes_of):
        if not routes:
            continue
        if messages is not batch or size is None:
            size = cost_of(messages)
        shared: dict[int, Routed] = {}
        for session, grant, own in routes:
            if grant is not own:
                outgoing = [
                    (message, granted)
                    for message in messages
                    if (granted := own if message.publisher == session.client_id else grant)
                ]
                part = outgoing, size_of(outgoing)
            elif (known := shared.get(id(grant))) is not None:
                part = known
            else:
                assert grant is not None, "a route without No Local has a grant"
                part = shared[id(grant)] = [(message, grant) for message in messages], size
            if session not in routed:
                routed[session] = part
            elif session in more:
                more[session].append(part)
            else:
                more[session] = [routed[session], part]
    for session, parts in more.items():
        routed[session] = [*chain.from_iterable([o for o, _ in parts])], sum([n for _, n in parts])
    return routed
