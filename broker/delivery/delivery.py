"""Delivery: every committed message to every session that is owed it, and nobody waits for another.

Each attached session has a reader in one of two states. *Live*: each committed batch is routed
through the topic tree into its outbox; messages are shared, not copied. *Behind*: after a
reconnect, or when the outbox is full, its reader takes batches from the log, each when there is
room again, until it has come to the newest routed offset; then it is live, with no gap and no
repeat, since nothing is awaited between that comparison and the switch.

The newest batches are kept in a bounded `Recent`, so that a reader a little behind can close up
with a fast publisher and does not ask the disk for what was just written.
"""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from typing import Protocol, TypeVar
from weakref import WeakValueDictionary

from broker.clock import Clock
from broker.config import Config
from broker.counters import Counters
from broker.delivery import readers
from broker.delivery.readers import CatchUp, Reader, ReaderKey, Replay, Retained, size_of
from broker.delivery.recent import Recent
from broker.delivery.routes import RouteTable, route
from broker.documents import Delete, Put, SubscriptionDocument
from broker.errors import StoreError, StoreUnavailable
from broker.log.log import Log, StateSource
from broker.message import Grant, Message, Offset, Outgoing
from broker.session.position import LivePosition
from broker.session.session import Session
from broker.store import Read, Skipped
from broker.topics import REPLAY_ENDED, is_shared

logger = logging.getLogger(__name__)

READ_RETRY_S = 1.0
T = TypeVar("T")

ASIDE_MAX = 1000
"""Messages waiting in `aside` of a session, beyond which `offer_beside` passes it over."""


class Subscriber(Protocol):
    """Whoever empties a session: its client."""

    def wake(self) -> None:
        """There is something to take, or more may be in flight."""
        ...

    def broken(self, error: StoreError) -> None:
        """The log cannot be read for this session."""
        ...

    def failed(self, error: Exception) -> None:
        """We made a mistake while it was served: log it and cut the client off. Raises nothing."""
        ...


class Delivery:
    """All attached sessions, and the tail of the log that feeds them."""

    def __init__(self, log: Log, counters: Counters, config: Config, clock: Clock) -> None:
        self._log = log
        self._counters = counters
        self._config = config
        self._clock = clock
        self.live = LivePosition(log.high_watermark)
        self._recent = Recent(log.high_watermark)
        self._routes = RouteTable()
        self._subscribers: dict[Session, Subscriber] = {}
        self._newest_start = Offset(0)
        self._advanced: asyncio.Event | None = None
        """What `routed` waits for: set when a batch was routed."""
        self._readers: dict[Session, dict[ReaderKey, Reader]] = {}
        self._unreadable = False
        """Whether the store could not answer when it was last asked."""
        self._looking: WeakValueDictionary[Session, asyncio.Lock] = WeakValueDictionary()
        """A session has one reader look into the log at a time: it may have 10,000 that replay."""
        log.source_failed = self._source_failed

    @property
    def subscription_count(self) -> int:
        """Of the attached sessions."""
        return len(self._routes)

    def attach(self, session: Session, subscriber: Subscriber) -> None:
        """Deliver to this session, from its position on."""
        self._subscribers[session] = subscriber
        self._readers[session] = {}
        for subscription in session.subscriptions.values():
            if subscription.replaying:
                self._start(session, Replay(self, session, subscription))
            if not is_shared(subscription.filter):
                self._routes.add(session, subscription)
        if session.owed.subscriptions():
            self.send_retained(session)
        if session.subscriptions:
            self._start(session, CatchUp(self, session))
        else:
            session.go_live(self.live)

    def detach(self, session: Session) -> None:
        """The client is gone. The session keeps its place in the log, and nothing in memory."""
        self._subscribers.pop(session, None)
        for reader in self._readers.pop(session, {}).values():
            reader.stop()
        try:
            for topic_filter in session.subscriptions:
                self._routes.remove(session, topic_filter)
        finally:
            session.detach()

    def subscribe(self, session: Session, subscription: SubscriptionDocument) -> None:
        """Route to this subscription too, or replay it first if it asks for that. [MQTT-3.8.4-3]"""
        self._stop(session, (Replay, subscription.filter))
        self._newest_start = max(self._newest_start, subscription.start_offset)
        session.subscribe(subscription)
        if subscription.replaying:
            self._start(session, Replay(self, session, subscription))
        if not is_shared(subscription.filter):
            self._routes.add(session, subscription)

    def unsubscribe(self, session: Session, topic_filter: str) -> bool:
        """Whether there was such a subscription."""
        self._stop(session, (Replay, topic_filter))
        self._routes.remove(session, topic_filter)
        return session.unsubscribe(topic_filter) is not None

    def send_retained(self, session: Session) -> None:
        """Hand on the retained messages that subscriptions of this session are owed."""
        self._stop(session, (Retained, None))
        self._start(session, Retained(self, session))

    def is_wanted(self, topic: str) -> bool:
        """Whether an attached session is subscribed to this topic, now or once it has replayed."""
        return self._routes.is_wanted(topic)

    def drained(self, session: Session) -> None:
        """The client took from the session: whoever reads for it may have room again."""
        for reader in self._readers[session].values():
            reader.look_for_room()

    def wake(self, session: Session) -> None:
        """Tell its client that there is something to take; of no effect once that has left."""
        subscriber = self._subscribers.get(session)
        if subscriber is not None:
            try:
                subscriber.wake()
            except Exception as error:
                self.failed(session, error)

    async def deliver_forever(self) -> None:
        """Route batch after batch until the store closes. Raises StoreError, but for one that is
        over by itself.

        The acknowledgements of a batch leave first, and its publishers go on while it is routed:
        14 % more messages a second in `make bench`, qos1-w1 and qos1-w20. A batch of another
        broker has none here and does not wait for ours.
        """
        await self._from_store(self._deliver_tail)

    async def _deliver_tail(self) -> None:
        async for batch in self._log.store.tail(Offset(self.live.through + 1)):
            if isinstance(batch, Skipped):
                self._skip(range(batch.first, batch.last + 1))
            else:
                await self._log.acknowledgements_sent()
                self._deliver(batch)

    def _skip(self, removed: range) -> None:
        """Retention removed these before they were routed. Who is behind finds out by reading."""
        for session in list(self._subscribers):
            if session.position.is_live and session.subscriptions:
                self._counters.dropped["removed by retention"] += len(removed)
                try:
                    session.miss([removed])
                except Exception as error:
                    self.failed(session, error)
        self._recent = Recent(Offset(removed.stop - 1))
        self._routed_through(Offset(removed.stop - 1))

    def _deliver(self, batch: Sequence[Message]) -> None:
        self._recent.add(batch)
        woken: list[Session] = []
        for session, (outgoing, size) in self._route(batch).items():
            if not session.position.is_live:
                continue
            try:
                if batch[0].offset <= self._newest_start:
                    # The batch was committed before a subscription and is routed after it.
                    outgoing = [(m, grant) for m, _ in outgoing if (grant := session.grants.of(m))]
                    size = size_of(outgoing)
                if (
                    len(session.outbox) + len(outgoing) > self._config.outbox_messages_max
                    or session.outbox.size + size > self._config.outbox_bytes_max
                ) and session.outbox:
                    session.fall_behind()
                    self._start(session, CatchUp(self, session))
                else:
                    session.offer(outgoing, size)
                    woken.append(session)
            except Exception as error:
                self.failed(session, error)
        self._routed_through(batch[-1].offset)
        for session in woken:
            self.wake(session)

    def _route(self, batch: Sequence[Message]) -> dict[Session, tuple[list[Outgoing], int]]:
        """As `route`. If that fails, each session reads the batch from the log: then whoever it is
        fails alone."""
        try:
            return route(batch, self._routes.of)
        except Exception as error:
            logger.critical("messages that are not routed are read from the log", exc_info=error)
            for session in self._subscribers:
                if session.position.is_live and session.subscriptions:
                    session.fall_behind()
                    self._start(session, CatchUp(self, session))
            return {}

    def _routed_through(self, offset: Offset) -> None:
        self.live.advance(offset)
        advanced, self._advanced = self._advanced, None
        if advanced is not None:
            advanced.set()

    def offer_beside(self, batch: Sequence[Message]) -> None:
        """Messages of QoS 0 that are not in the log, to whoever is attached and subscribed now.

        Who is slow misses them: nothing else bounds them.
        """
        for session, (outgoing, _) in route(batch, self._routes.of).items():
            if session not in self._subscribers:
                continue  # What it was woken for closed another's connection.
            try:
                if len(session.aside) >= ASIDE_MAX:
                    self._counters.dropped["beside the log, to a slow subscriber"] += len(outgoing)
                else:
                    session.offer_aside(outgoing)
                    self.wake(session)
            except Exception as error:
                self.failed(session, error)

    def _start(self, session: Session, reader: Reader) -> None:
        self._readers[session][reader.key] = reader
        reader.start()

    def failed(self, session: Session, error: Exception) -> None:
        """The session cannot be served on: its client is closed, and nobody else's. A StoreError
        says that the log cannot be read, anything else is a mistake of ours. Raises nothing."""
        subscriber = self._subscribers.get(session)
        if subscriber is None:
            logger.critical("session of %r", session.client_id, exc_info=error)
            return
        try:
            if isinstance(error, StoreError):
                subscriber.broken(error)
            else:
                subscriber.failed(error)
        except Exception as another:
            subscriber.failed(another)

    def _source_failed(self, source: StateSource, error: Exception) -> None:
        assert isinstance(source, Session), "nothing else has state in the log"
        self.failed(source, error)

    def _stop(self, session: Session, key: ReaderKey) -> None:
        reader = self._readers[session].pop(key, None)
        if reader is not None:
            reader.stop()

    async def fetch(
        self, session: Session, offsets: Sequence[Offset], bytes_max: int
    ) -> tuple[Read, int]:
        """The messages at these offsets, which rise, and how many of the offsets were looked at.

        A message of these that is missing is damaged, and named so, or was removed by retention.
        Raises StoreError.
        """
        fetch = self._log.store.fetch
        read = await self._look(session, lambda: fetch(offsets, bytes_max=bytes_max))
        return read, bisect_left(offsets, read.next)

    async def _look(self, session: Session, read: Callable[[], Awaitable[T]]) -> T:
        """As `_from_store`, when no other reader of the session does."""
        async with self._looking.setdefault(session, asyncio.Lock()):
            return await self._from_store(read)

    async def _from_store(self, read: Callable[[], Awaitable[T]]) -> T:
        """What the store answers, however long it cannot: that is tried again until it can."""
        while True:
            try:
                answer = await read()
            except StoreUnavailable as error:
                if not self._unreadable:
                    logger.warning("the log is not read until this is over: %s", error)
                self._unreadable = True
                await self._clock.sleep(READ_RETRY_S)
            else:
                if self._unreadable:
                    logger.warning("the log is read again")
                self._unreadable = False
                return answer

    # What readers ask of it

    async def retained(self, session: Session, filters: Sequence[str]) -> list[Offset]:
        return await self._look(session, lambda: self._log.store.retained(filters))

    async def routed(self, through: Offset) -> None:
        """Return when every batch through this offset, which is in the log, was routed."""
        while self.live.through < through:
            if self._advanced is None:
                self._advanced = asyncio.Event()
            await self._advanced.wait()

    async def read(
        self, session: Session, after: Offset, end: Offset, filters: Iterable[str]
    ) -> tuple[list[Message], Offset, list[range]]:
        """Messages above `after` that may match, how far that went, and which offsets up to there
        are missing: damaged, or removed by retention. They are counted."""
        if after >= self._recent.after:
            return *self._recent.read(after), []
        read = await self._look(
            session,
            lambda: self._log.store.read(
                Offset(after + 1),
                end,
                [*filters],
                limit=readers.READ_MESSAGES_MAX,
                bytes_max=readers.READ_BYTES_MAX,
            ),
        )
        messages = readers.sendable(read.messages, self._counters)
        return messages, Offset(read.next - 1), self._missing(after, end, read)

    def _missing(self, after: Offset, end: Offset, read: Read) -> list[range]:
        """What is missing above `after` of what was read. (P5)"""
        log_start = self._log.store.log_start
        removed = range(after + 1, min(log_start, end + 1))
        damaged = [part for part in read.damaged if part.start >= log_start]
        self._counters.dropped["damaged"] += sum(map(len, damaged))
        if removed:
            self._counters.dropped["removed by retention"] += len(removed)
            return [removed, *damaged]
        return damaged

    def caught_up(self, session: Session) -> None:
        """From here on the session is fed with each batch."""
        session.go_live(self.live)
        self._readers[session].pop((CatchUp, None), None)

    def retained_read(self, session: Session, read: Read, *, last_part: bool) -> None:
        """These are the next on the topics that the session is owed retained messages of."""
        if last_part:
            self._readers[session].pop((Retained, None), None)
        if read.damaged:
            self._counters.dropped["damaged"] += sum(map(len, read.damaged))
        session.owed.offer(readers.sendable(read.messages, self._counters), last_part=last_part)
        self.wake(session)

    def joined(self, session: Session, subscription: SubscriptionDocument) -> None:
        """A replay came to where its session is: they go on together."""
        self._readers[session].pop((Replay, subscription.filter), None)
        subscription.replaying = False
        self.subscribe(session, subscription)
        session.grants.replay_joined(subscription.filter)
        if session.durable:
            # With the cursor: what was replayed is in flight, and now that alone owes it.
            self._log.append([], operations=[Put(replace(subscription))])
            self._log.changed(session)

    def ended(
        self, session: Session, subscription: SubscriptionDocument, missing: Sequence[range]
    ) -> None:
        """A replay came to its end: the subscription is over, and its client is told."""
        self._readers[session].pop((Replay, subscription.filter), None)
        self.unsubscribe(session, subscription.filter)
        if session.durable:
            key = (session.client_id, subscription.filter)
            self._log.append([], operations=[Delete(SubscriptionDocument, key)])
            self._log.changed(session)
        payload = subscription.filter.encode()
        notice = Message(REPLAY_ENDED, payload, 0, False, "", 0)
        session.offer_aside([(notice, Grant(0, missing=tuple(missing)))])
        self.wake(session)
