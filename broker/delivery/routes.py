"""Routes: which attached sessions get the messages of a topic, and how.

The routes of a topic are found through the tree of all subscriptions, and remembered. A change of
one subscription concerns few topics, but finding these among all remembered ones would take longer
than forgetting all. So all remembered routes become doubtful. When a topic is routed the next time,
its doubtful routes are used if no changed filter matches the topic, else they are found anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain, groupby

from broker.delivery.readers import size_of
from broker.documents import SubscriptionDocument
from broker.message import Grant, Message, Outgoing
from broker.session.grants import merge_grants
from broker.session.session import Session
from broker.topics import TopicTree

REMEMBERED_MAX = 100_000
"""Topics whose routes are remembered; also the number of different routes that are kept. Routes
keep sessions in memory that have left, but nothing that waited in them."""
CHANGED_MAX = 256
"""Filters that changed, beyond which all routes, doubtful or interned, are forgotten instead."""

Route = tuple[Session, Grant | None, Grant | None]
"""Session, how it gets others' messages, how it gets its own (they differ by No Local)."""
Routes = tuple[Route, ...]


class RouteTable:
    """The subscriptions of attached sessions. Those that replay have no route yet."""

    def __init__(self) -> None:
        self._tree: TopicTree[Session, tuple[Session, SubscriptionDocument]] = TopicTree()
        self._routes: dict[str, Routes] = {}
        self._doubtful: dict[str, Routes] = {}
        """Routes that were remembered before the newest change."""
        self._changed: TopicTree[None, str] = TopicTree()
        """Filters that changed since there were no doubtful routes."""
        self._interned: dict[Routes, Routes] = {}
        """Each different route once, also those that no topic has any more."""

    def __len__(self) -> int:
        """How many subscriptions there are."""
        return len(self._tree)

    def add(self, session: Session, subscription: SubscriptionDocument) -> None:
        """Also in place of the session's former one with this filter."""
        self._tree.add(subscription.filter, session, (session, subscription))
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
            if max(remembered, len(self._interned)) >= REMEMBERED_MAX:
                self._forget()
            routes = self._routes[topic] = self._interned.setdefault(routes, routes)
        return routes

    def is_wanted(self, topic: str) -> bool:
        """Whether there is any subscription that matches."""
        return bool(self.of(topic) or self._tree.match(topic))

    def subscribed(self, topic: str) -> set[tuple[Session, str]]:
        """The sessions that are subscribed, each with its Topic Filters that match."""
        return {(session, found.filter) for session, found in self._tree.match(topic)}

    def _find(self, topic: str) -> Routes:
        subscriptions: dict[Session, list[SubscriptionDocument]] = {}
        for session, subscription in self._tree.match(topic):
            if not subscription.replaying:
                subscriptions.setdefault(session, []).append(subscription)
        return tuple([_route(session, matching) for session, matching in subscriptions.items()])

    def _doubt(self, topic_filter: str) -> None:
        self._doubtful.update(self._routes)
        self._routes.clear()
        if len(self._changed) >= CHANGED_MAX:
            self._forget()
        elif self._doubtful:
            self._changed.add(topic_filter, None, topic_filter)

    def _forget(self) -> None:
        self._routes.clear()
        self._doubtful.clear()
        self._changed = TopicTree()
        self._interned.clear()


def _route(session: Session, matching: list[SubscriptionDocument]) -> Route:
    grant = merge_grants(matching)
    if not any(subscription.no_local for subscription in matching):
        return session, grant, grant
    return session, grant, merge_grants([s for s in matching if not s.no_local])


def route(
    batch: Sequence[Message], routes_of: Callable[[str], Routes]
) -> dict[Session, tuple[list[Outgoing], int]]:
    """What each session gets of a batch, in order, and its size.

    Runs of messages with the same routes are handled together, and all sessions with the same grant
    share the run's entries: one publisher to 100 subscribers builds one list.
    """
    runs: dict[Session, list[tuple[list[Outgoing], int]]] = {}
    for routes, run in groupby(batch, lambda message: routes_of(message.topic)):
        if not routes:
            continue
        messages = list(run)
        size = sum([message.size for message in messages])
        entries: dict[Grant | None, list[Outgoing]] = {}
        for session, grant, own in routes:
            if grant is not own:
                outgoing = [
                    (message, granted)
                    for message in messages
                    if (granted := own if message.publisher == session.client_id else grant)
                ]
                runs.setdefault(session, []).append((outgoing, size_of(outgoing)))
                continue
            outgoing = entries.get(grant, [])
            if not outgoing:
                assert grant is not None, "a route without No Local has a grant"
                outgoing = entries[grant] = [(message, grant) for message in messages]
            runs.setdefault(session, []).append((outgoing, size))
    return {
        session: parts[0]
        if len(parts) == 1
        else ([*chain.from_iterable([part for part, _ in parts])], sum([n for _, n in parts]))
        for session, parts in runs.items()
    }
