"""Will Messages and their delay. A will is stored at CONNECT, so a crash of the broker keeps it.

It is published, and removed in the same commit, when its client is lost: at once, or after the Will
Delay Interval if the client does not come back before, but not after its session has ended.
[MQTT-3.1.2-8, MQTT-3.1.3-9]

A client that the broker itself cut off, by a stop or a crash, has `will_restart_grace_s` to come
back to the next run, which cancels its will: else each restart would leave a retained "offline" of
every device. A will that is due earlier, whatever for, waits until that is over. 0 is the letter of
the standard.

A will can be as large as a packet, so none is kept in memory: of each only its deadline. A will is
read when it is due, one after the other.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from broker.clock import NEVER, Clock, Instant
from broker.counters import Counters
from broker.delivery.readers import sendable
from broker.documents import (
    Author,
    Delete,
    Operation,
    Place,
    Put,
    WillDeadlineDocument,
    WillDocument,
)
from broker.errors import MessageRefused, StoreUnavailable
from broker.log.deadlines import Deadlines
from broker.log.log import Log
from broker.log.retained_topics import NOTHING, Counted, RetainedTopics, no_limit
from broker.message import Message, Monotonic
from broker.registry.ownership import Alone, Ownership, Taken

AT_ONCE = Monotonic(0)
"""The deadline of a will that is due, whatever `now` the caller has."""
MOVE_GRACE_S = 30.0
"""A client that is told to go on at another broker has at least so long to get there."""
MOVED_AT_ONCE_MAX = 1000
"""Wills that one commit stores of that: a few ms."""
RETRY_S = 1.0
"""How often a will that the store cannot give or take now is tried again."""

NO_RIGHT = "will: no right to publish any more"
"""Why a will is dropped that was permitted when it came."""

logger = logging.getLogger(__name__)


class Wills:
    """`deadline_moved` is called when a deadline may be earlier than it was."""

    def __init__(
        self,
        log: Log,
        counters: Counters,
        clock: Clock,
        deadline_moved: Callable[[], None],
        *,
        restart_grace_s: float,
    ) -> None:
        self._log = log
        self._counters = counters
        self._clock = clock
        self._deadline_moved = deadline_moved
        self._restart_grace_s = restart_grace_s
        self._grace_until = NEVER
        self._of_earlier_run: set[str] = set()
        """Clients that left a will to this run, and were not here yet."""
        self._stopping = False
        self._wills: dict[str, WillDeadlineDocument] = {}
        """Of each will in the log."""
        self.may_publish: Callable[[Author, str], bool] = lambda author, topic: True
        """Whether this author may publish to the topic now."""
        self.retained = RetainedTopics(log, no_limit)
        self._published: dict[str, tuple[Message, Counted]] = {}
        """The older wills of clients that are coming back, if they are to be retained: they count
        when they are committed."""
        self._delayed = Deadlines[Monotonic]()
        """When to publish the wills of clients that are lost already."""
        self._held: dict[str, Monotonic] = {}
        """The same of clients that are coming back: not before it is known whether they do."""
        self._are_due = asyncio.Event()
        self._reading = asyncio.Lock()
        """One will is read at a time, and the log has room for it."""

    async def start(self, ownership: Ownership | None = None) -> None:
        """Learn of the wills that an earlier run left. Raises StoreError."""
        for will in await (ownership or Alone(self._log.store)).inherited(WillDeadlineDocument):
            self._wills[will.client_id] = will
            self._of_earlier_run.add(will.client_id)

    def listening(self, has_session: Callable[[str], bool], now: Instant) -> None:
        """Clients can come back from now on. Those that were connected to the earlier run are lost.

        A session that was not to outlive its connection ended with that run, and with it the delay.
        """
        self._grace_until = now.after(self._restart_grace_s)
        for client_id in self._of_earlier_run:
            self._is_left(self._wills[client_id], now, has_session=has_session(client_id))
        self._deadline_moved()

    def _is_left(self, will: WillDeadlineDocument, now: Instant, *, has_session: bool) -> None:
        due_at = now.monotonic
        if has_session:
            if will.due_at_us is None and will.delay_s:
                self._delay(will, will.delay_s, now)
            if will.due_at_us is not None:
                due_at = self._log.time.monotonic_at(will.due_at_us)
        self._delayed.set(will.client_id, max(due_at, self._grace_until))

    def taken(self, taken: Taken, now: Instant) -> None:
        """A client has left this to another broker, and its session is here now: the client, too,
        or it was cut off by the end of that broker, and may come back."""
        if (will := taken.will) is None:
            return
        client_id = will.client_id
        self._wills[client_id] = will
        # One that has ended and is due has its time to come back already.
        if taken.cut_off and not (taken.has_ended and will.due_at_us is not None):
            self._of_earlier_run.add(client_id)
            if self._grace_until == NEVER:
                return  # Its time begins when we are `listening`.
            self._grace_until = max(self._grace_until, now.after(self._restart_grace_s))
            self._is_left(will, now, has_session=not taken.has_ended)
            # So that whoever takes it from here knows how long its client may come back.
            will.due_at_us = self._log.time.served_at(self._delayed.get(client_id) or AT_ONCE)
            self._log.append([], operations=[Put(will)])
            self._deadline_moved()
        elif will.due_at_us is None:
            expiry_s = taken.document.session_expiry_s
            self.client_lost(client_id, session_expiry_s=expiry_s, now=now)
        else:
            due_at = self._log.time.monotonic_at(will.due_at_us)
            if taken.has_ended:  # No will waits longer than its session, but for who may come back.
                self._of_earlier_run.add(client_id)
                self._grace_until = max(self._grace_until, due_at)
            self._publish_at(client_id, due_at)

    def has(self, client_id: str) -> bool:
        return client_id in self._wills

    def lost(self, client_id: str) -> None:
        """Another broker has the session, and with it the will."""
        self._delayed.remove(client_id)
        self._held.pop(client_id, None)
        self._of_earlier_run.discard(client_id)
        self._forget(client_id)

    def broker_stops(self) -> None:
        """Who is lost from now on is lost because of that, and may come back to the next run."""
        self._stopping |= self._restart_grace_s > 0

    def clients_move(self, now: Instant) -> list[Operation]:
        """Who is lost from now on goes on at another broker, and has as much time for that as to
        come back after a restart. What to store of that before it is told so; call it again until
        that is nothing."""
        self._stopping = True
        until = now.after(max(self._restart_grace_s, MOVE_GRACE_S))
        stored: list[Operation] = []
        for client_id, will in self._wills.items():
            if will.due_at_us is None and client_id not in self._delayed:
                will.due_at_us = self._log.time.served_at(until)
                stored.append(Put(will))
                if len(stored) >= MOVED_AT_ONCE_MAX:
                    break
        return stored

    async def connecting(
        self, client_id: str, will: WillDocument | None, *, session_ends: bool, now: Instant
    ) -> tuple[list[Message], list[Operation]]:
        """What to commit before CONNACK: this will is in force then, an older one of the client
        that waited is void, or published if it is due or its session ends, unless the client is
        back from a restart of ours. [MQTT-3.1.2-8, MQTT-3.1.3-9]

        Then call `connected`, or `not_connected`, also if this raised StoreError. Until then the
        older one waits on.
        """
        previous = self._wills.get(client_id)
        due_at = self._delayed.get(client_id)
        if due_at is not None:
            self._delayed.remove(client_id)
            self._held[client_id] = due_at
        is_due = due_at is not None and due_at <= now.monotonic
        is_due |= session_ends and not self._may_come_back(client_id, now)
        messages, counted = await self._read(client_id) if previous and is_due else ([], NOTHING)
        if counted.place is not None:
            self._published[client_id] = messages[0], counted
        if will is not None:
            return messages, [Put(will), Put(WillDeadlineDocument(client_id, will.delay_s, None))]
        return messages, _removal(client_id) if previous else []

    def connected(self, client_id: str, will: WillDocument | None) -> None:
        """What `connecting` returned is committed."""
        self._of_earlier_run.discard(client_id)
        self._held.pop(client_id, None)
        self._delayed.remove(client_id)
        self._forget(client_id)
        if client_id in self._published:
            message, counted = self._published.pop(client_id)
            counted.stored_at(message.offset)
            self._log.append([], operations=counted.operations, place=Place())
        if will is not None:
            self._wills[client_id] = WillDeadlineDocument(client_id, will.delay_s, None)

    def not_connected(self, client_id: str) -> None:
        """It is not: the client was refused, and everything is as before."""
        due_at = self._held.pop(client_id, None)
        self._published.pop(client_id, None)
        if due_at is not None:
            self._publish_at(client_id, due_at)

    def withdrawn(self, client_id: str) -> None:
        """DISCONNECT with Reason Code 0: the will is removed unpublished. [MQTT-3.14.4-3]"""
        self._delayed.remove(client_id)
        if self._forget(client_id):
            self._log.append([], operations=_removal(client_id))

    def client_lost(self, client_id: str, *, session_expiry_s: int, now: Instant) -> None:
        """Publish the client's will, now or after its delay, but not after its session ended."""
        will = self._wills.get(client_id)
        if will is None or self._stopping:
            return
        delay_s = min(will.delay_s, session_expiry_s)
        self._publish_at(client_id, self._delay(will, delay_s, now) if delay_s else AT_ONCE)

    def _delay(self, will: WillDeadlineDocument, delay_s: float, now: Instant) -> Monotonic:
        """When it is due, which is stored."""
        due_at = now.after(delay_s)
        will.due_at_us = self._log.time.served_at(due_at)
        self._log.append([], operations=[Put(will)])
        return due_at

    def session_ended(self, client_id: str, now: Instant) -> None:
        """The session is over: a will that still waited is due now. [MQTT-3.1.2-8]"""
        if client_id in self._delayed and not self._stopping:
            may_come_back = self._may_come_back(client_id, now)
            self._publish_at(client_id, self._grace_until if may_come_back else AT_ONCE)

    def deadline(self) -> Monotonic | None:
        """When the next will that waits is to be published."""
        return None if self._are_due.is_set() else self._delayed.soonest()

    def expire(self, now: Instant) -> None:
        """Let `publish_forever` publish those whose delay has passed. [MQTT-3.1.3-9]"""
        if self._delayed.first_due(now.monotonic) is not None:
            self._are_due.set()

    async def publish_forever(self) -> None:
        while True:
            await self._are_due.wait()
            await self.publish_due()
            self._are_due.clear()
            self._deadline_moved()

    async def publish_due(self) -> None:
        """Hand every will that is due to the log."""
        while (client_id := self._delayed.first_due(self._clock.monotonic())) is not None:
            try:
                await self._publish(client_id)
            except StoreUnavailable as error:
                logger.error("the will of %r is tried again: %s", client_id, error)
                await self._clock.sleep(RETRY_S)
            except Exception as error:
                self._delayed.remove(client_id)
                logger.critical("the will of %r", client_id, exc_info=error)

    async def _publish(self, client_id: str) -> None:
        will, due_at = self._wills[client_id], self._delayed.get(client_id)
        messages, counted = await self._read(client_id)
        if self._wills.get(client_id) is will and self._delayed.get(client_id) == due_at:
            self._log.append(messages, operations=_removal(client_id))
            if counted.place is not None:
                self._log.append([], operations=counted.operations, place=counted.place)
            self._delayed.remove(client_id)
            self._forget(client_id)
            self._of_earlier_run.discard(client_id)

    def _forget(self, client_id: str) -> bool:
        """Whether it had a will."""
        return self._wills.pop(client_id, None) is not None

    def _may_come_back(self, client_id: str, now: Instant) -> bool:
        """Whether the client was cut off by our restart, and its time to come back is not over."""
        return client_id in self._of_earlier_run and now.monotonic < self._grace_until

    def _publish_at(self, client_id: str, at: Monotonic) -> None:
        self._delayed.set(client_id, at)
        self._deadline_moved()

    async def _read(self, client_id: str) -> tuple[list[Message], Counted]:
        """The will as a message, and what it adds to its user's retained topics; none if no client
        could get it, or it may not be published any more. Raises StoreError.

        Before the next one is read, the caller has handed this one to the log, or dropped it.
        """
        async with self._reading:
            if self._log.congested:
                await self._log.commit_now([], keep_if_full=False)
            will = await self._log.store.get(WillDocument, (client_id,))
        if will is None:
            logger.error("the will of %r is not in the log any more", client_id)
            return [], NOTHING
        user = will.user or ""
        await self.retained.prepare([(user, will)])
        try:
            if not self.may_publish(will.author, will.topic):
                raise MessageRefused(NO_RIGHT, NO_RIGHT)
            counted = self.retained.take(user, will)
        except MessageRefused as error:
            self._counters.dropped[error.dropped_as] += 1
            logger.info("the will of %r is not published: %s", client_id, error.reason)
            return [], NOTHING
        time, now_us = self._log.time, self._clock.wall_us()
        expires_at_us = None if will.expiry_s is None else time.expires_at_us(now_us, will.expiry_s)
        message = Message(
            will.topic,
            will.payload,
            will.qos,
            will.retain,
            will.client_id,
            now_us,
            expires_at_us,
            will.properties,
        )
        messages = sendable([message], self._counters)
        return messages, counted if messages else NOTHING


def _removal(client_id: str) -> list[Operation]:
    return [Delete(WillDocument, (client_id,)), Delete(WillDeadlineDocument, (client_id,))]
