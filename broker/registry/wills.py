"""Will Messages and their delay. A will is stored at CONNECT, so a crash of the broker keeps it.

It is published, and removed in the same commit, when its client is lost: at once, or after the Will
Delay Interval if the client does not come back before, but not after its session has ended.
[MQTT-3.1.2-8, MQTT-3.1.3-9]
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from broker.documents import Delete, Operation, Put, WillDocument
from broker.log.log import Log
from broker.message import Message

US = 1_000_000


class Wills:
    def __init__(self, log: Log) -> None:
        self._log = log
        self._wills: dict[str, WillDocument] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}

    async def start(self, has_session: Callable[[str], bool]) -> None:
        """Take up what an earlier run left: whoever was connected when it died is lost now.

        A session that was not to outlive its connection ended then, and nothing waits for it.
        """
        for will in await self._log.store.scan(WillDocument):
            self._wills[will.client_id] = will
            if not has_session(will.client_id):
                self._publish(will)
            elif will.due_at_us is None:
                self.client_lost(will.client_id, session_expiry_s=will.delay_s)
            else:
                self._publish_at(will, will.due_at_us)

    def stop(self) -> None:
        """Forget the timers; the log keeps what is due later."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def connected(self, client_id: str, will: WillDocument | None) -> list[Operation]:
        """The client is here: an older will of its is void, this one is in force. [MQTT-3.1.3-9]

        Returns what to commit before CONNACK.
        """
        self._cancel_timer(client_id)
        previous = self._wills.pop(client_id, None)
        if will is not None:
            self._wills[client_id] = will
            return [Put(will)]
        return [Delete(WillDocument, (client_id,))] if previous else []

    def withdrawn(self, client_id: str) -> None:
        """DISCONNECT with Reason Code 0: the will is removed unpublished. [MQTT-3.14.4-3]"""
        self._cancel_timer(client_id)
        if self._wills.pop(client_id, None) is not None:
            self._log.append([], operations=[Delete(WillDocument, (client_id,))])

    def client_lost(self, client_id: str, *, session_expiry_s: int) -> None:
        """Publish the client's will, now or after its delay, but not after its session ended."""
        will = self._wills.get(client_id)
        if will is None:
            return
        delay_s = min(will.delay_s, session_expiry_s)
        if delay_s == 0:
            self._publish(will)
            return
        will.due_at_us = time.time_ns() // 1000 + delay_s * US
        self._log.append([], operations=[Put(will)])
        self._publish_at(will, will.due_at_us)

    def session_ended(self, client_id: str) -> None:
        """The session is over: a will that still waited is published now. [MQTT-3.1.2-8]"""
        if client_id in self._timers:
            self._publish(self._wills[client_id])

    def _publish_at(self, will: WillDocument, due_at_us: int) -> None:
        delay_s = max(0.0, (due_at_us - time.time_ns() // 1000) / US)
        loop = asyncio.get_running_loop()
        self._timers[will.client_id] = loop.call_later(delay_s, self._publish, will)

    def _publish(self, will: WillDocument) -> None:
        self._cancel_timer(will.client_id)
        del self._wills[will.client_id]
        now_us = time.time_ns() // 1000
        message = Message(
            will.topic,
            will.payload,
            will.qos,
            will.retain,
            will.client_id,
            now_us,
            None if will.expiry_s is None else now_us + will.expiry_s * US,
            will.properties,
        )
        self._log.append([message], operations=[Delete(WillDocument, (will.client_id,))])

    def _cancel_timer(self, client_id: str) -> None:
        timer = self._timers.pop(client_id, None)
        if timer is not None:
            timer.cancel()
