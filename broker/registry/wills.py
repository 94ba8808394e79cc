"""Will Messages and their delay. A will is stored at CONNECT, so a crash of the broker keeps it.

It is published, and removed in the same commit, when its client is lost: at once, or after the Will
Delay Interval if the client does not come back before, but not after its session has ended.
[MQTT-3.1.2-8, MQTT-3.1.3-9]

A client that the broker itself cut off, by a stop or a crash, has `will_restart_grace_s` to come
back to the next run, which cancels its will: else each restart would leave a retained "offline" of
every device. A will that is due earlier, whatever for, waits until that is over. 0 is the letter of
the standard.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from broker.clock import NEVER, Instant
from broker.counters import Counters
from broker.documents import Delete, Operation, Put, WillDocument
from broker.log.log import Log
from broker.message import Message, Monotonic
from broker.registry.deadlines import Deadlines
from broker.topics import CONTROL_CHARACTER, has_control_character

PUBLISHED_AT_ONCE_MAX = 100
"""Wills that were delayed and are published in one turn of the loop."""

logger = logging.getLogger(__name__)


class Wills:
    """`deadline_moved` is called when a deadline may be earlier than it was."""

    def __init__(
        self,
        log: Log,
        counters: Counters,
        deadline_moved: Callable[[], None],
        *,
        restart_grace_s: float,
    ) -> None:
        self._log = log
        self._counters = counters
        self._deadline_moved = deadline_moved
        self._restart_grace_s = restart_grace_s
        self._grace_until = NEVER
        self._of_earlier_run: set[str] = set()
        """Clients that left a will to this run, and were not here yet."""
        self._stopping = False
        self._wills: dict[str, WillDocument] = {}
        self._delayed = Deadlines()
        """When to publish the wills of clients that are lost already."""
        self._held: dict[str, Monotonic] = {}
        """The same of clients that are coming back: not before it is known whether they do."""

    async def start(self) -> None:
        """Read the wills that an earlier run left. Raises StoreError."""
        for will in await self._log.store.scan(WillDocument):
            self._wills[will.client_id] = will
            self._of_earlier_run.add(will.client_id)

    def listening(self, has_session: Callable[[str], bool], now: Instant) -> None:
        """Clients can come back from now on. Those that were connected to the earlier run are lost.

        A session that was not to outlive its connection ended with that run, and with it the delay.
        """
        self._grace_until = now.after(self._restart_grace_s)
        for client_id in self._of_earlier_run:
            will = self._wills[client_id]
            due_at = now.monotonic
            if has_session(client_id):
                if will.due_at_us is None and will.delay_s:
                    self._delay(will, will.delay_s, now)
                if will.due_at_us is not None:
                    due_at = self._log.time.monotonic_at(will.due_at_us)
            self._delayed.set(client_id, max(due_at, self._grace_until))
        self._deadline_moved()

    def broker_stops(self) -> None:
        """Who is lost from now on is lost because of that, and may come back to the next run."""
        self._stopping = self._restart_grace_s > 0

    def connecting(
        self, client_id: str, will: WillDocument | None, *, session_ends: bool, now: Instant
    ) -> tuple[list[Message], list[Operation]]:
        """What to commit before CONNACK: this will is in force then, an older one of the client
        that waited is void, or published if its session ends, unless the client is back from a
        restart of ours. [MQTT-3.1.2-8, MQTT-3.1.3-9]

        Then call `connected`, or `not_connected`. Until then the older one waits on.
        """
        previous = self._wills.get(client_id)
        due_at = self._delayed.get(client_id)
        if due_at is not None:
            self._delayed.remove(client_id)
            self._held[client_id] = due_at
        is_due = session_ends and not self._may_come_back(client_id, now)
        messages = self._message(previous, now) if previous and is_due else []
        if will is not None:
            return messages, [Put(will)]
        return messages, [Delete(WillDocument, (client_id,))] if previous else []

    def connected(self, client_id: str, will: WillDocument | None) -> None:
        """What `connecting` returned is committed."""
        self._of_earlier_run.discard(client_id)
        self._held.pop(client_id, None)
        self._delayed.remove(client_id)
        self._wills.pop(client_id, None)
        if will is not None:
            self._wills[client_id] = will

    def not_connected(self, client_id: str) -> None:
        """It is not: the client was refused, and everything is as before."""
        due_at = self._held.pop(client_id, None)
        if due_at is not None:
            self._publish_at(client_id, due_at)

    def withdrawn(self, client_id: str) -> None:
        """DISCONNECT with Reason Code 0: the will is removed unpublished. [MQTT-3.14.4-3]"""
        self._delayed.remove(client_id)
        if self._wills.pop(client_id, None) is not None:
            self._log.append([], operations=[Delete(WillDocument, (client_id,))])

    def client_lost(self, client_id: str, *, session_expiry_s: int, now: Instant) -> None:
        """Publish the client's will, now or after its delay, but not after its session ended."""
        will = self._wills.get(client_id)
        if will is None or self._stopping:
            return
        delay_s = min(will.delay_s, session_expiry_s)
        if delay_s == 0:
            self._publish(will, now)
            return
        self._publish_at(client_id, self._delay(will, delay_s, now))

    def _delay(self, will: WillDocument, delay_s: float, now: Instant) -> Monotonic:
        """When it is due, which is stored."""
        due_at = now.after(delay_s)
        will.due_at_us = self._log.time.served_at(due_at)
        self._log.append([], operations=[Put(will)])
        return due_at

    def session_ended(self, client_id: str, now: Instant) -> None:
        """The session is over: a will that still waited is due now. [MQTT-3.1.2-8]"""
        if client_id not in self._delayed or self._stopping:
            return
        if self._may_come_back(client_id, now):
            self._publish_at(client_id, self._grace_until)
        else:
            self._delayed.remove(client_id)
            self._publish(self._wills[client_id], now)

    def deadline(self) -> Monotonic | None:
        """When the next will that waits is to be published."""
        return self._delayed.soonest()

    def expire(self, now: Instant) -> None:
        """Publish those whose delay has passed. [MQTT-3.1.3-9]"""
        for client_id in self._delayed.take_due(now.monotonic, PUBLISHED_AT_ONCE_MAX):
            try:
                self._publish(self._wills[client_id], now)
            except Exception as error:
                logger.critical("the will of %r", client_id, exc_info=error)

    def _may_come_back(self, client_id: str, now: Instant) -> bool:
        """Whether the client was cut off by our restart, and its time to come back is not over."""
        return client_id in self._of_earlier_run and now.monotonic < self._grace_until

    def _publish_at(self, client_id: str, at: Monotonic) -> None:
        self._delayed.set(client_id, at)
        self._deadline_moved()

    def _publish(self, will: WillDocument, now: Instant) -> None:
        del self._wills[will.client_id]
        self._of_earlier_run.discard(will.client_id)
        operations = [Delete(WillDocument, (will.client_id,))]
        self._log.append(self._message(will, now), operations=operations)

    def _message(self, will: WillDocument, now: Instant) -> list[Message]:
        """The will as a message; none if no client could get it."""
        time = self._log.time
        message = Message(
            will.topic,
            will.payload,
            will.qos,
            will.retain,
            will.client_id,
            now.wall_us,
            None if will.expiry_s is None else time.expires_at_us(now.wall_us, will.expiry_s),
            will.properties,
        )
        if has_control_character(will.topic):  # An older program accepted it.
            self._counters.dropped[CONTROL_CHARACTER] += 1
            return []
        return [message]
