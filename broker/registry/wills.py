"""Will Messages and their delay. A will is stored at CONNECT, so a crash of the broker keeps it.

It is published, and removed in the same commit, when its client is lost: at once, or after the Will
Delay Interval if the client does not come back before, but not after its session has ended.
[MQTT-3.1.2-8, MQTT-3.1.3-9]
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from broker.clock import US, Instant
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

    def __init__(self, log: Log, counters: Counters, deadline_moved: Callable[[], None]) -> None:
        self._log = log
        self._counters = counters
        self._deadline_moved = deadline_moved
        self._wills: dict[str, WillDocument] = {}
        self._delayed = Deadlines()
        """When to publish the wills of clients that are lost already."""
        self._held: dict[str, Monotonic] = {}
        """The same of clients that are coming back: not before it is known whether they do."""

    async def start(self, has_session: Callable[[str], bool], now: Instant) -> None:
        """Take up the wills that an earlier run left. Clients that were connected are lost now.

        A session that was not to outlive its connection ended then, and nothing waits for it.
        """
        for will in await self._log.store.scan(WillDocument):
            self._wills[will.client_id] = will
            if not has_session(will.client_id):
                self._publish(will, now)
            elif will.due_at_us is None:
                self.client_lost(will.client_id, session_expiry_s=will.delay_s, now=now)
            else:
                self._publish_at(will, self._log.time.monotonic_at(will.due_at_us))

    def connecting(
        self, client_id: str, will: WillDocument | None, *, session_ends: bool, now: Instant
    ) -> tuple[list[Message], list[Operation]]:
        """What to commit before CONNACK: this will is in force then, an older one of the client
        that waited is void, or published if its session ends. [MQTT-3.1.2-8, MQTT-3.1.3-9]

        Then call `connected`, or `not_connected`. Until then the older one waits on.
        """
        previous = self._wills.get(client_id)
        due_at = self._delayed.get(client_id)
        if due_at is not None:
            self._delayed.remove(client_id)
            self._held[client_id] = due_at
        messages = self._message(previous, now) if previous and session_ends else []
        if will is not None:
            return messages, [Put(will)]
        return messages, [Delete(WillDocument, (client_id,))] if previous else []

    def connected(self, client_id: str, will: WillDocument | None) -> None:
        """What `connecting` returned is committed."""
        self._held.pop(client_id, None)
        self._wills.pop(client_id, None)
        if will is not None:
            self._wills[client_id] = will

    def not_connected(self, client_id: str) -> None:
        """It is not: the client was refused, and everything is as before."""
        due_at = self._held.pop(client_id, None)
        if due_at is not None:
            self._publish_at(self._wills[client_id], due_at)

    def withdrawn(self, client_id: str) -> None:
        """DISCONNECT with Reason Code 0: the will is removed unpublished. [MQTT-3.14.4-3]"""
        self._delayed.remove(client_id)
        if self._wills.pop(client_id, None) is not None:
            self._log.append([], operations=[Delete(WillDocument, (client_id,))])

    def client_lost(self, client_id: str, *, session_expiry_s: int, now: Instant) -> None:
        """Publish the client's will, now or after its delay, but not after its session ended."""
        will = self._wills.get(client_id)
        if will is None:
            return
        delay_s = min(will.delay_s, session_expiry_s)
        if delay_s == 0:
            self._publish(will, now)
            return
        due_at = now.after(delay_s)
        will.due_at_us = self._log.time.served_at(due_at)
        self._log.append([], operations=[Put(will)])
        self._publish_at(will, due_at)

    def session_ended(self, client_id: str, now: Instant) -> None:
        """The session is over: a will that still waited is published now. [MQTT-3.1.2-8]"""
        if self._delayed.remove(client_id):
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

    def _publish_at(self, will: WillDocument, at: Monotonic) -> None:
        self._delayed.set(will.client_id, at)
        self._deadline_moved()

    def _publish(self, will: WillDocument, now: Instant) -> None:
        del self._wills[will.client_id]
        operations = [Delete(WillDocument, (will.client_id,))]
        self._log.append(self._message(will, now), operations=operations)

    def _message(self, will: WillDocument, now: Instant) -> list[Message]:
        """The will as a message; none if no client could get it."""
        message = Message(
            will.topic,
            will.payload,
            will.qos,
            will.retain,
            will.client_id,
            now.wall_us,
            None if will.expiry_s is None else self._log.time.aged_us() + will.expiry_s * US,
            will.properties,
        )
        if has_control_character(will.topic):  # An older program accepted it.
            self._counters.dropped[CONTROL_CHARACTER] += 1
            return []
        return [message]
