"""Delivery: every committed message to every session that is owed it, and nobody waits for another.

Each attached session has a reader in one of two states. *Live*: each committed batch is routed
through the topic tree into its outbox; messages are shared, not copied. *Behind*: after a
reconnect, or when the outbox is full, its reader takes batches from the log, each when there is
room again, until it has come to the newest routed offset; then it is live, with no gap and no
repeat, since nothing is awaited between that comparison and the switch.

QoS 0 does not wait for its commit, see `at_once.py`.
"""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_left
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from operator import attrgetter

from broker.clock import Clock
from broker.config import Config
from broker.counters import Counters
from broker.delivery import readers
from broker.delivery.at_once import TOO_SLOW, AtOnce
from broker.delivery.changes import ROUTED_AT_ONCE_MAX, Changes
from broker.delivery.looks import Looks
from broker.delivery.readers import CatchUp, Reader, ReaderKey, Replay
from broker.delivery.recent import Recent
from broker.delivery.removed import read_on
from broker.delivery.retained import Retained
from broker.delivery.routes import Routed, RouteTable, parts_by_work, route
from broker.delivery.subscribers import Subscriber, Subscribers
from broker.delivery.waking import Waking
from broker.documents import Delete, Put, SubscriptionDocument
from broker.log.batch import StateSource
from broker.log.log import Log
from broker.message import Grant, Message, Offset, cost_of
from broker.session.position import LivePosition
from broker.session.session import Session
from broker.store import Read, Skipped
from broker.topics import REPLAY_ENDED, is_shared

logger = logging.getLogger(__name__)
ASIDE_MAX = 1000
"""Messages waiting in `aside` of a session, beyond which `offer_beside` passes it over."""


class Delivery:
    """All attached sessions, and the tail of the log that feeds them."""

    def __init__(self, log: Log, counters: Counters, config: Config, clock: Clock) -> None:
        self._log = log
        self._counters = counters
        self._config = config
        self.live = LivePosition(log.high_watermark, log.qos0.ahead)
        self._recent = Recent(log.high_watermark)
        self._routes = RouteTable()
        self.subscribers = Subscribers()
        self.changes = Changes(log, self)
        self._advanced: asyncio.Event | None = None
        """What `routed` waits for: set when a batch was routed."""
        self._readers: dict[Session, dict[ReaderKey, Reader]] = {}
        self._looks = Looks(clock)
        self.wake, self.failed = self.subscribers.wake, self.subscribers.failed
        self.waking = Waking(self.wake, counters)
        self._at_once = AtOnce(log, counters, self._routes, self.live, self.subscribers)
        self.rights_changed = self._at_once.rights_changed
        log.qos0.hand_on = self._at_once.hand_on
        log.qos0.give_up = self._at_once.give_up
        log.source_failed = self._source_failed

    @property
    def subscription_count(self) -> int:
        """Of the attached sessions."""
        return len(self._routes)

    async def attach(self, session: Session, subscriber: Subscriber) -> None:
        """Deliver to this session, from its position on. Nobody else may use it before this
        returns."""
        await self._routes.detached(session)
        self.subscribers.add(session, subscriber)
        self._readers[session] = {}
        subscriptions = [*session.subscriptions.values()]
        for n, part in enumerate(parts_by_work(subscriptions, attrgetter("filter"))):
            if n:
                await asyncio.sleep(0)
            for subscription in part:
                self._route_from_start(session, subscription)
        if session.owed.subscriptions():
            self.send_retained(session)
        if session.subscriptions:
            self.start(session, CatchUp(self, session, self.live.through))
        else:
            session.go_live(self.live)
            self._at_once.live(session)

    def detach(self, session: Session) -> None:
        """The client is gone. The session keeps its place in the log, and nothing in memory."""
        self.subscribers.remove(session)
        self._at_once.forget(session)
        for reader in self._readers.pop(session, {}).values():
            reader.stop()
        try:
            self._routes.detach(session, partial(self.failed, session))
        finally:
            session.detach()

    def subscribe(self, session: Session, subscription: SubscriptionDocument) -> None:
        """Route to this subscription from its start on, or replay it. At once: `changes` does it in
        order, and stores it. [MQTT-3.8.4-3]"""
        self.stop(session, (Replay, subscription.filter))
        session.subscribe(subscription)
        if session.grants.by_log:
            self._at_once.stay_back(session)
        self._route_from_start(session, subscription)

    def unsubscribe(self, session: Session, topic_filter: str) -> bool:
        """Whether there was such a subscription. As `subscribe`."""
        self.stop(session, (Replay, topic_filter))
        self.change_route(session, topic_filter, None)
        return session.unsubscribe(topic_filter) is not None

    def go_back(self, session: Session, through: Offset) -> None:
        """Read what was routed above `through`: a subscription made just now began there."""
        if session.position.is_live and through < self.live.through:
            self.fall_behind(session, through)

    def fall_behind(self, session: Session, through: Offset | None = None) -> None:
        """From here on it is fed by a reader."""
        session.fall_behind(through)
        self._at_once.forget(session)
        self.start(session, CatchUp(self, session))

    def seek(self, session: Session, through: Offset) -> None:
        """Let this session go on right above `through`, see `Session.seek`."""
        self.stop(session, (CatchUp, None))
        self._at_once.forget(session)
        for subscription in session.seek(through):
            self.subscribe(session, subscription)
        self.start(session, CatchUp(self, session))

    def hold(self, session: Session) -> None:
        """A change of its subscriptions came: what comes after that waits until it is in effect."""
        session.standing.hold()
        self._at_once.stay_back(session)

    def let_go(self, session: Session) -> None:
        """Such a change is in effect."""
        session.standing.let_go()
        self._at_once.catch_up(session)

    def change_route(
        self, session: Session, topic_filter: str, subscription: SubscriptionDocument | None
    ) -> None:
        """From here on route to this subscription; None: to no subscription with this filter."""
        if subscription is None:
            self._routes.remove(session, topic_filter)
        elif session in self.subscribers and not is_shared(topic_filter):
            self._routes.add(session, subscription)
            begun = (Replay, topic_filter) in self._readers[session]  # By `attach`.
            is_current = session.subscriptions.get(topic_filter) is subscription
            if subscription.replaying and is_current and not begun:
                self.start(session, Replay(self, session, subscription))

    def _route_from_start(self, session: Session, subscription: SubscriptionDocument) -> None:
        """Route to this subscription, or replay it, from its start on."""
        if subscription.start_offset > self.live.through:
            self.changes.expect(session, subscription)
        else:
            self.change_route(session, subscription.filter, subscription)

    def send_retained(self, session: Session) -> None:
        """Hand on the retained messages that subscriptions of this session are owed."""
        self.stop(session, (Retained, None))
        self.start(session, Retained(self, session))

    def send_owed(self, session: Session) -> None:
        """Hand on what new subscriptions are owed at once: what is retained, or was put aside."""
        if session.owed.unread and session in self.subscribers:
            self.send_retained(session)
        self.wake(session)

    def is_wanted(self, topic: str) -> bool:
        """Whether an attached session is subscribed to this topic, now or once it has replayed."""
        return self.changes.is_wanted(topic, self._routes)

    def drained(self, session: Session) -> None:
        """The client took from the session: whoever reads for it may have room again."""
        if session in self._at_once.back:
            self._at_once.catch_up(session)
        for reader in self._readers[session].values():
            reader.look_for_room()

    async def deliver_forever(self) -> None:
        """Route batch after batch, whose acknowledgements left first. Raises StoreError to stay."""
        await self._looks.until_answered(self._deliver_tail)

    async def _deliver_tail(self) -> None:
        start = Offset(self.live.through + 1)
        async for batch in self._log.store.tail(start, take=self._deliver_at_once):
            if isinstance(batch, Skipped):
                self._skip(range(batch.first, batch.last + 1))
            elif self.changes.waiting or len(batch) > ROUTED_AT_ONCE_MAX:
                async for part in self.changes.split(batch):
                    self._deliver(part)
            else:
                self._deliver(batch)
            if self.waking.later:
                await asyncio.sleep(0)

    def _deliver_at_once(self, batch: Sequence[Message]) -> bool:
        """Route a batch in the turn in which it was committed, if nothing is to come before it."""
        if taken := not (self.changes.waiting or self.waking.later):
            self._deliver(batch)
        return taken

    def _skip(self, removed: range) -> None:
        """Retention removed these before they were routed. Who is behind finds out by reading."""
        for session in self.subscribers:
            if session.position.is_live and session.subscriptions:
                self._counters.dropped[readers.REMOVED] += len(removed)
                session.tally.lacks(len(removed))
                try:
                    session.supply.miss([removed])
                except Exception as error:
                    self.failed(session, error)
        self._recent = Recent(Offset(removed.stop - 1))
        self._routed_through(Offset(removed.stop - 1))
        self.changes.routed()

    def removed(self, offsets: Collection[Offset]) -> None:
        """Retention removed these though somebody wants them: none is sent from memory any more."""
        self._recent = Recent(self.live.through)
        read_on(self, self.subscribers, offsets, self.failed)

    def _deliver(self, batch: Sequence[Message]) -> None:
        self._recent.add(batch, batch_size := cost_of(batch))
        woken: list[Session] = []
        config = self._config
        routed: Mapping[Session, Routed] = {}
        try:
            if self.live.ahead.parts:
                routed = self._at_once.route(batch)
            else:
                routed = route(batch, self._routes.of, batch_size)
        except Exception as error:
            self._read_instead(error)
        for session, (outgoing, size) in routed.items():
            if not session.standing.position.is_live:
                continue
            try:
                outbox = session.outbox
                if outbox and (
                    len(outbox) + len(outgoing) > config.outbox_messages_max
                    or outbox.size + size > config.outbox_bytes_max
                ):
                    self.fall_behind(session)
                else:
                    session.supply.offer(outgoing, size)
                    woken.append(session)
            except Exception as error:
                self.failed(session, error)
        self._routed_through(batch[-1].offset)
        self.waking.wake(woken)
        if self.changes.waiting:
            self.changes.routed()

    def _read_instead(self, error: Exception) -> None:
        """A batch could not be routed: all read it from the log, and whoever it is fails alone."""
        logger.critical("messages that are not routed are read from the log", exc_info=error)
        for session in self.subscribers:
            if session.position.is_live and session.subscriptions:
                self.fall_behind(session)

    def _routed_through(self, offset: Offset) -> None:
        self.live.advance(offset)
        advanced, self._advanced = self._advanced, None
        if advanced is not None:
            advanced.set()

    def offer_beside(self, batch: Sequence[Message]) -> None:
        """Messages of QoS 0 that are not in the log, to whoever is subscribed and not slow now."""
        woken: list[Session] = []
        for session, (outgoing, _) in route(batch, self._routes.of).items():
            if session not in self.subscribers:
                continue
            try:
                if len(session.supply.aside) >= ASIDE_MAX:
                    self._counters.dropped[TOO_SLOW] += len(outgoing)
                else:
                    session.supply.offer_aside(outgoing)
                    woken.append(session)
            except Exception as error:
                self.failed(session, error)
        self.waking.wake(woken)

    def start(self, session: Session, reader: Reader) -> None:
        self._readers[session][reader.key] = reader
        reader.start()

    def _source_failed(self, source: StateSource, error: Exception) -> None:
        assert isinstance(source, Session), "nothing else has state in the log"
        self.failed(source, error)

    def stop(self, session: Session, key: ReaderKey) -> None:
        """Stop this reader of the session, if there is one."""
        reader = self._readers[session].pop(key, None)
        if reader is not None:
            reader.stop()

    async def fetch(
        self, session: Session, offsets: Sequence[Offset], bytes_max: int
    ) -> tuple[Read, int]:
        """The messages at these offsets, which rise, and how many of the offsets were looked at.
        One that is missing is damaged, and named so, or was removed. Raises StoreError."""
        fetch = self._log.store.fetch
        read = await self._looks.look(session, lambda: fetch(offsets, bytes_max=bytes_max))
        return read, bisect_left(offsets, read.next)

    async def retained(self, session: Session, filters: Sequence[str]) -> list[Offset]:
        # Beside the session's other looks: while one searches long, another looks for few topics.
        return await self._looks.until_answered(lambda: self._log.store.retained(filters))

    async def routed(self, through: Offset) -> None:
        """Return when every batch through this offset, as far as it is in the log, was routed."""
        through = min(through, self._log.high_watermark)
        while self.live.through < through:
            self._advanced = self._advanced or asyncio.Event()
            await self._advanced.wait()

    async def read(
        self,
        session: Session,
        after: Offset,
        end: Offset,
        filters: Iterable[str],
        counted: Offset,
        *,
        replay: bool = False,
    ) -> tuple[list[Message], Offset, list[range]]:
        """See `Feed.read`."""
        if after >= self._recent.after:
            return *self._recent.read(after), []
        read = await self._looks.look(
            session,
            lambda: self._log.store.read(
                Offset(after + 1),
                end,
                [*filters],
                limit=readers.READ_MESSAGES_MAX,
                bytes_max=readers.READ_BYTES_MAX,
            ),
        )
        low = self._log.store.log_start if replay else self._log.store.missing_before
        missing = readers.missing(read, (after, end), low, self._counters, counted)
        return readers.sendable(read.messages, self._counters), Offset(read.next - 1), missing

    def caught_up(self, session: Session) -> None:
        """From here on the session is fed with each batch."""
        self._readers[session].pop((CatchUp, None), None)
        session.go_live(self.live)
        self._at_once.live(session)

    def retained_read(self, session: Session, read: Read, *, last_part: bool) -> None:
        """These are the next on the topics that the session is owed retained messages of."""
        if last_part:
            self._readers[session].pop((Retained, None), None)
        rights, now = session.grants.rights, self._log.time.aged_us()
        retained = readers.unexpired(read, now, self._counters, rights)
        session.owed.offer(retained, last_part=last_part)
        self.wake(session)

    def joined(self, session: Session, subscription: SubscriptionDocument) -> None:
        """A replay came to where its session is: they go on together."""
        self._readers[session].pop((Replay, subscription.filter), None)
        subscription.replaying = False
        self.subscribe(session, subscription)
        session.grants.replay_joined(subscription.filter)
        self._at_once.catch_up(session)
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
        session.supply.offer_aside([(notice, Grant(0, missing=tuple(missing)))])
        self.wake(session)
