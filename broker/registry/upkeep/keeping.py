"""Keeping: which rule of retention is for which topic, and which messages somebody still wants.

Wanted is what matches a subscription of a durable session or group above its cursor, what a replay
of one has not come to, and what a connected session that is behind has not read. Their filters
are looked at anew in each pass, and topics are matched as they are met.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Protocol

from broker.clock import Clock
from broker.counters import Counters
from broker.documents import CursorDocument, InFlightDocument
from broker.errors import ConfigError, PeerError, StoreCorrupt
from broker.log.upkeep.keeper import Judged
from broker.message import Message, Offset
from broker.session.cursor import listed
from broker.session.position import LivePosition
from broker.session.session import Session
from broker.settings.retention import RetentionRule
from broker.store import Store
from broker.topics import SYS, TopicTree, is_shared, matches, refuse_words, validate_filter

EVENT = f"{SYS}/broker/gaps"
JUDGED_MAX = 50_000
NAMES_LENGTH_MAX = 8 << 20
"""Topics that are remembered, and their characters."""
FILTERS_MAX = 100_000
"""Filters whose subscribers are told apart. With more, all is kept that any of the rest wants."""
HELD_MAX = 100_000
NAMED_MAX = 10
"""Subscribers of one filter that are named when something goes that they want."""

logger = logging.getLogger(__name__)


class Audience(Protocol):
    """Who is there: delivery."""

    live: LivePosition

    @property
    def subscribers(self) -> Iterable[Session]: ...

    def offer_beside(self, batch: Sequence[Message]) -> None: ...

    def removed(self, offsets: Collection[Offset]) -> None: ...


class Keeping:
    """A `broker.log.upkeep.keeper.Keeper`."""

    why = "what else may go does not make enough room"
    """... that something goes unread."""

    def __init__(
        self,
        rules: Sequence[RetentionRule],
        store: Store,
        delivery: Audience,
        counters: Counters,
        clock: Clock,
    ) -> None:
        """Raises ConfigError: a filter of the rules is none."""
        self.rules = rules
        self._new_rules: Sequence[RetentionRule] | None = None
        self.held: set[Offset] = set()
        self.unread_from = Offset(0)
        self._store = store
        self._delivery = delivery
        self._counters = counters
        self._clock = clock
        self._rules: dict[int, int] = {}
        """The rule of each topic, as far as it is remembered."""
        self._unread: dict[int, Offset] = {}
        """The same of what is wanted of it, in this pass."""
        self._names: dict[int, str] = {}
        self._names_length = 0
        self._told = False
        """Whether it was said in this pass that something goes unread."""
        self._wanted = Wanted()
        require_filters(rules)

    def renew(self, rules: Sequence[RetentionRule]) -> None:
        """From the next pass on, these are the rules."""
        self._new_rules = rules

    def take_new_rules(self) -> bool:
        if self._new_rules is None:
            return False
        self.rules, self._new_rules = self._new_rules, None
        self._rules.clear()
        return True

    async def look(self) -> Offset:
        through = self._delivery.live.through
        self._unread.clear()
        self._told = False
        wanted, held = Wanted(), set[Offset]()
        for session in [*self._delivery.subscribers]:
            if not session.position.is_live:
                for topic_filter in session.subscriptions:
                    wanted.add(topic_filter, Offset(session.position.through + 1), "")
        after: tuple[str, str] | None = ("", "")
        listing = ""
        while after is not None:
            part, after = await self._store.removing.owed(after)
            for owed in part:
                if owed.start <= through:
                    wanted.add(owed.filter, owed.start, owed.client_id)
                if owed.lists and owed.client_id != listing:
                    listing = owed.client_id
                    held.update(await self._in_flight(owed.client_id))
            await asyncio.sleep(0)
        if len(held) > HELD_MAX:
            wanted.add_all(min(held))
            held.clear()
        self._wanted, self.held = wanted, held
        self.unread_from = min(wanted.lowest, Offset(through + 1))
        return through

    async def _in_flight(self, client_id: str) -> Iterable[Offset]:
        """What a session lists, as far as its cursor does not say so anyway."""
        cursor = await self._store.get(CursorDocument, (client_id,))
        if cursor is None:
            return ()
        try:
            pages = await self._store.scan(InFlightDocument, (client_id,))
            return [e.offset for e in listed(cursor, pages) if e.offset <= cursor.offset]
        except StoreCorrupt:
            return ()  # Whoever opens the session is told.

    async def judge(self, topic_ids: Collection[int]) -> Mapping[int, Judged]:
        if len(self._rules) + len(topic_ids) > JUDGED_MAX or self._names_length > NAMES_LENGTH_MAX:
            self._rules.clear()
            self._unread.clear()
            self._names.clear()
            self._names_length = 0
        unknown = [t for t in topic_ids if t not in self._unread or t not in self._rules]
        if unknown:
            names = await self._store.removing.topic_names(unknown)
            self._names_length += sum(len(names[t]) for t in names.keys() - self._names.keys())
            self._names |= names
            for topic_id, name in names.items():
                if topic_id not in self._rules:
                    self._rules[topic_id] = self.rule_of(name)
                self._unread[topic_id] = self._wanted.by_topic(name)
        return {
            topic_id: Judged(self._rules[topic_id], self._unread[topic_id])
            for topic_id in topic_ids
            if topic_id in self._unread and self._rules[topic_id] >= 0
        }

    def rule_of(self, topic: str) -> int:
        """The first rule that matches; -1: none does."""
        for number, rule in enumerate(self.rules):
            if rule.filter is None or matches(rule.filter, topic):
                return number
        return -1

    def removed_unread(self, offsets: Sequence[Offset], topic_ids: Collection[int]) -> None:
        """Tell it as a message on EVENT, and once in a pass on standard error."""
        topics = [self._names[number] for number in topic_ids if number in self._names]
        clients = self._wanted.by(offsets[-1], topics)
        event = {
            "messages": len(offsets),
            "first": offsets[0],
            "last": offsets[-1],
            "subscribers": clients,
        }
        self._counters.removed_unread += len(offsets)
        self._delivery.removed({*offsets})
        if not self._told:
            self._told = True
            logger.warning(
                "messages are removed that %s did not get, from offset %d on: %s",
                ", ".join(clients) or "a connected client",
                *(offsets[0], self.why),
            )
        payload = json.dumps(event).encode()
        wall_us = self._clock.wall_us()
        self._delivery.offer_beside([Message(EVENT, payload, 0, False, SYS, wall_us)])


class Selected(Keeping):
    """For removal by hand: the topics that match one of some filters have the rule 0."""

    why = "the operator wanted that"

    def __init__(self, filters: Sequence[str], of: Keeping) -> None:
        """Raises TopicFilterInvalid."""
        for topic_filter in filters:
            validate_filter(topic_filter)
            refuse_words(topic_filter, "removal")
        rules = [RetentionRule(topic_filter) for topic_filter in filters] or [RetentionRule(None)]
        super().__init__(rules, of._store, of._delivery, of._counters, of._clock)

    def rule_of(self, topic: str) -> int:
        return min(super().rule_of(topic), 0)


class Wanted:
    """Filters of those who want something, and from which offset on."""

    def __init__(self) -> None:
        self.lowest = Offset(1 << 62)
        self._filters: dict[str, tuple[Offset, list[str]]] = {}
        self._all_from = self.lowest
        self._tree: TopicTree[None, str] | None = None

    def add(self, topic_filter: str, start: Offset, client_id: str) -> None:
        """Of a session without a durable name `client_id` is empty."""
        if is_shared(topic_filter):
            return  # The group has a session of its own.
        self.lowest = min(self.lowest, start)
        known = self._filters.get(topic_filter)
        if known is not None:
            lowest, clients = known
        elif len(self._filters) < FILTERS_MAX:
            lowest, clients = start, []
        else:
            self.add_all(start)
            return
        if client_id and len(clients) < NAMED_MAX:
            clients.append(client_id)
        self._filters[topic_filter] = min(lowest, start), clients

    def add_all(self, start: Offset) -> None:
        """Somebody wants all from there on."""
        self.lowest, self._all_from = min(self.lowest, start), min(self._all_from, start)

    def by_topic(self, topic: str) -> Offset:
        """From which offset on somebody wants messages of the topic."""
        return min([self._all_from, *[self._filters[found][0] for found in self._matching(topic)]])

    def by(self, offset: Offset, topics: Iterable[str]) -> list[str]:
        """Some of those who want something at or below the offset, on one of these topics."""
        names: dict[str, None] = {}
        for topic in topics:
            for found in self._matching(topic):
                start, clients = self._filters[found]
                if start <= offset:
                    names |= dict.fromkeys(clients)
            if len(names) >= NAMED_MAX:
                break
        return [*names][:NAMED_MAX]

    def _matching(self, topic: str) -> list[str]:
        if self._tree is None:
            self._tree = TopicTree()
            for topic_filter in self._filters:
                self._tree.add(topic_filter, None, topic_filter)
        return self._tree.match(topic)


def require_filters(rules: Sequence[RetentionRule]) -> None:
    """Raises ConfigError: one of their filters is none."""
    for number, rule in enumerate(rules, 1):
        require_filter(f"retention[{number}].filter", rule.filter)


def require_filter(key: str, topic_filter: str | None) -> None:
    """Raises ConfigError: it is no Topic Filter."""
    if topic_filter is None:
        return
    try:
        if is_shared(topic_filter):
            raise ConfigError(key, topic_filter, "must be a filter of topics, not of a group")
        validate_filter(topic_filter)
    except PeerError as error:
        raise ConfigError(key, topic_filter, f"is no Topic Filter: {error.reason}") from error
