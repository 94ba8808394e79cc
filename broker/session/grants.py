"""Grants: what one session is subscribed to, and how it gets a message because of that.

A grant is the subscriptions that match a message, merged into one copy. A subscription that replays
grants nothing here: its replay does, until it has come to the session's own place in the log.

A subscription begins at a place that its commit decides. Until then its `start_offset` is NOT_YET.

What is taken of a replay, or of retained messages, changes the document of its subscription. The
changed ones are kept here for the next commit.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from broker.cache import Cache
from broker.documents import NOT_YET, Operation, Place, Put, SubscriptionDocument
from broker.message import Grant, Message, Offset, Outgoing
from broker.security.rights import Rights
from broker.topics import TopicTree, is_shared, wildcard_pattern

CACHED_TOPICS_MAX = 10_000
CACHED_LENGTH_MAX = 1 << 20
"""Topics whose merged grant one session remembers while it reads the log, and their characters."""
WRITTEN_LATER_MAX = 100
"""A commit that writes fewer changed subscriptions than this takes along some of `write_later`. Not
all 10,000 of a session at once: others wait for the commit."""


class SubscriptionSet:
    """The subscriptions of one session, by Topic Filter."""

    def __init__(self, client_id: str) -> None:
        self.rights = Rights.ALL
        """What of it may be read."""
        self._rights_version = 0
        self.by_filter: dict[str, SubscriptionDocument] = {}
        self._client_id = client_id
        self._tree: TopicTree[str, SubscriptionDocument] = TopicTree()
        """Without Shared Subscriptions: what these get is for their groups to say."""
        self._cache: Cache[str, tuple[list[SubscriptionDocument], Grant | None]]
        self._cache = Cache(CACHED_TOPICS_MAX, CACHED_LENGTH_MAX)
        """By topic: the matching subscriptions that do not replay, and their grant if all count."""
        self.joined: dict[str, None] = {}
        """Topic Filters that got no live message yet since their replay ended."""
        self.by_log: dict[str, None] = {}
        """Topic Filters whose messages must be logged before they go out: those that replay, or
        that ask for the offset of each."""
        self.unplaced: dict[str, Mapping[str, Place]] = {}
        """By Topic Filter: the fields that wait for a place, as in a `Put`."""
        self._patterns: dict[str, int] = {}
        """How many filters have each pattern of wildcards."""
        self.changed = False
        """Whether the next commit has something to write."""
        self._write_next: dict[str, None] = {}
        self._writing: dict[str, None] = {}
        self._write_later: dict[str, None] = {}

    def allow(self, rights: Rights) -> None:
        """A client with these rights is there."""
        self.rights, self._rights_version = rights, rights.version

    def rights_changed(self) -> bool:
        """Whether less may be allowed than when this was asked last, or than at `allow`."""
        before, self._rights_version = self._rights_version, self.rights.version
        return before != self._rights_version

    def add(
        self, subscription: SubscriptionDocument, places: Mapping[str, Place] | None = None
    ) -> None:
        """Add the subscription, or replace the one with its filter. [MQTT-3.8.4-3] `places`: the
        fields that its commit will fill in."""
        if places:
            self.unplaced[subscription.filter] = places
        elif self.unplaced:
            self.unplaced.pop(subscription.filter, None)
        if subscription.replaying:
            self.joined.pop(subscription.filter, None)
        if subscription.replaying or subscription.metadata:
            self.by_log[subscription.filter] = None
        elif self.by_log:
            self.by_log.pop(subscription.filter, None)
        new = subscription.filter not in self.by_filter
        self.by_filter[subscription.filter] = subscription
        if not is_shared(subscription.filter):
            if new and (pattern := wildcard_pattern(subscription.filter)):
                self._patterns[pattern] = self._patterns.get(pattern, 0) + 1
            self._tree.add(subscription.filter, subscription.filter, subscription)
            self._cache.clear()

    def remove(self, topic_filter: str) -> SubscriptionDocument | None:
        """Remove the subscription; None if there was none. [MQTT-3.10.4-3]"""
        self.unplaced.pop(topic_filter, None)
        self._write_next.pop(topic_filter, None)
        self._write_later.pop(topic_filter, None)
        self.joined.pop(topic_filter, None)
        self.by_log.pop(topic_filter, None)
        self._tree.remove(topic_filter, topic_filter)
        self._cache.clear()
        removed = self.by_filter.pop(topic_filter, None)
        if removed is not None and (pattern := wildcard_pattern(topic_filter)) in self._patterns:
            self._patterns[pattern] -= 1
            if not self._patterns[pattern]:
                del self._patterns[pattern]
        return removed

    def has_patterns(self, most: int, topic_filter: str, made: Collection[str] = ()) -> bool:
        """Whether it has `most` patterns of wildcards, and this filter, which is to be added after
        those that are being `made`, has another. A message matches a filter of each at most: so
        what it costs to find them is bounded."""
        patterns, pattern = self._patterns, wildcard_pattern(topic_filter)
        if not pattern or pattern in patterns or len(patterns) + len(made) < most:
            return False
        others = {wildcard_pattern(new) for new in made if not is_shared(new)} - {""}
        return pattern not in others and len(patterns.keys() | others) >= most

    def inherit(self, subscription: SubscriptionDocument, place: Place) -> dict[str, Place]:
        """What the subscription has of the one that it replaces. Returns its fields that wait for a
        place: a start that is NOT_YET begins at `place`.

        If it does not want the retained messages as of `place`, it is owed those that the one
        before it still is.
        """
        existing = self.by_filter.get(subscription.filter)
        places = dict(self.unplaced.get(subscription.filter, {}))
        if subscription.start_offset != NOT_YET:
            places.pop("start_offset", None)
        elif existing is None:
            places["start_offset"] = place
        if subscription.replaying:
            places.pop("retained_through", None)
        elif self.wants_retained(subscription):
            places["retained_through"] = place
        elif existing is not None:
            subscription.retained_after = existing.retained_after
            subscription.retained_through = existing.retained_through
        return places

    def wants_retained(self, subscription: SubscriptionDocument) -> bool:
        """Whether it asks for what is retained when it is made. [MQTT-3.3.1-9..11]"""
        if subscription.replaying or is_shared(subscription.filter):
            return False
        new = subscription.filter not in self.by_filter
        return subscription.retain_handling == 0 or (subscription.retain_handling == 1 and new)

    def fill_in(self, place: Place, topic_filters: Iterable[str]) -> list[SubscriptionDocument]:
        """The commit decided this place. Returns the subscriptions of these that waited for it."""
        waited: list[SubscriptionDocument] = []
        for topic_filter in topic_filters:
            places = self.unplaced.get(topic_filter, {})
            here = [name for name, awaited in places.items() if awaited is place]
            if not here:
                continue
            subscription = self.by_filter[topic_filter]
            for name in here:
                setattr(subscription, name, place.offset)
            waited.append(subscription)
            left = {name: awaited for name, awaited in places.items() if awaited is not place}
            if left:
                self.unplaced[topic_filter] = left
            else:
                del self.unplaced[topic_filter]
        return waited

    def begin_at(self, through: Offset) -> list[SubscriptionDocument]:
        """Let subscriptions that begin above `through` begin there; not those that have an end,
        that wait for their place, or that are shared. Returns those among them that replay."""
        lasting = [
            s
            for s in self.by_filter.values()
            if s.until_offset is None and not (s.filter in self.unplaced or is_shared(s.filter))
        ]
        later = [s for s in lasting if s.start_offset > through]
        for subscription in later:
            subscription.start_offset = through
        replaying = [s for s in lasting if s.replaying]
        self.write_next([s.filter for s in (*later, *replaying)])
        return replaying

    def matching(self, topic: str) -> list[SubscriptionDocument]:
        """Subscriptions that match, whether they replay or not, but for shared ones."""
        return self._tree.match(topic)

    def of(self, message: Message) -> Grant | None:
        """How the session gets a message read from the log; None: it does not get it.

        Hot: `benchmarks.work`, backlog.
        """
        entry = self._cache.get(message.topic)
        subscriptions, merged = entry or self._find(message.topic)
        own = message.publisher == self._client_id
        offset = message.offset
        for s in subscriptions:
            if s.start_offset >= offset or (own and s.no_local):
                break
        else:
            return merged
        return merge_grants(
            s for s in subscriptions if s.start_offset < offset and not (own and s.no_local)
        )

    def is_history(self, message: Message) -> bool:
        """Whether only a replay can have brought it to the session beside its place, as far as its
        subscriptions of now tell. That of one that has ended is not among them any more."""
        return self.of(message) is None

    def as_it_comes(self, message: Message) -> Grant | None:
        """As `of`, for one that has no offset yet: it is newer than every subscription."""
        subscriptions, merged = self._cache.get(message.topic) or self._find(message.topic)
        if message.publisher != self._client_id:
            return merged
        return merge_grants(s for s in subscriptions if not s.no_local)

    def _find(self, topic: str) -> tuple[list[SubscriptionDocument], Grant | None]:
        matching = [s for s in self._tree.match(topic) if not s.replaying]
        return self._cache.keep(topic, (matching, merge_grants(matching)), len(topic))

    def forget(self) -> None:
        """Forget what is remembered of topics: the session has caught up."""
        self._cache.clear()

    # Replays

    def is_replaying(self, topic_filter: str) -> bool:
        """Whether there is such a subscription and it replays."""
        subscription = self.by_filter.get(topic_filter)
        return subscription is not None and subscription.replaying

    def replayed(self, topic_filter: str, through: Offset) -> None:
        """Everything of this replay up to here was taken, or did not match."""
        subscription = self.by_filter[topic_filter]
        if subscription.start_offset != through:
            subscription.start_offset = through
            self._write_next[topic_filter] = None
            self.changed = True

    def replay_joined(self, topic_filter: str) -> None:
        """This replay came to the session's own place: what comes now is live."""
        self.joined[topic_filter] = None

    def mark_caught_up(self, outgoing: list[Outgoing]) -> None:
        """Mark the first live message of each filter in `joined`. `outgoing`: the session's own."""
        for index, (message, grant) in enumerate(outgoing):
            subscriptions, _ = self._cache.get(message.topic) or self._find(message.topic)
            own = message.publisher == self._client_id
            first = [
                s.filter
                for s in subscriptions
                if s.filter in self.joined
                and s.start_offset < message.offset
                and not (own and s.no_local)
            ]
            if first:
                outgoing[index] = (message, replace(grant, caught_up=True))
                for topic_filter in first:
                    del self.joined[topic_filter]
                if not self.joined:
                    break

    # What the log keeps of it

    def write_next(self, topic_filters: Iterable[str]) -> None:
        """These changed: the next commit writes them."""
        self._write_next |= dict.fromkeys(topic_filters)
        self.changed = True

    def write_later(self, topic_filters: Iterable[str]) -> None:
        """These changed, and a crash may undo that: commits write them as they have room."""
        self._write_later |= dict.fromkeys(topic_filters)
        self.changed = True

    def take_changes(self) -> list[Operation]:
        """The changed subscriptions that the next commit must write."""
        writing, self._write_next = self._write_next, {}
        while self._write_later and len(writing) < WRITTEN_LATER_MAX:
            writing[self._write_later.popitem()[0]] = None
        self._writing = writing
        self.changed = bool(self._write_later)
        # Copies, since a replay goes on while they are written. What waits for a place is on its
        # way as a whole.
        changed = map(self.by_filter.get, writing)
        return [Put(replace(s)) for s in changed if s and s.filter not in self.unplaced]

    def not_committed(self) -> None:
        """What `take_changes` last returned was not stored: the next must write it again."""
        self._write_next |= self._writing
        self.changed = True


def merge_grants(subscriptions: Iterable[SubscriptionDocument]) -> Grant | None:
    """One copy for overlapping subscriptions: highest QoS, all identifiers. [MQTT-3.3.4-2..3]

    None for no subscription.
    """
    matching = list(subscriptions)
    if not matching:
        return None
    identifiers = {s.subscription_id for s in matching if s.subscription_id is not None}
    return Grant(
        qos=max(s.qos for s in matching),
        retain_as_published=any(s.retain_as_published for s in matching),
        subscription_ids=tuple(sorted(identifiers)),
        metadata=any(s.metadata for s in matching),
    )
