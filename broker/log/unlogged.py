"""Unlogged: messages of QoS 0 that the disk has no room or no time for.

They are counted, which is told once, and handed on to whoever is there. No later subscriber will
find them in the log.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Container, Sequence

from broker.clock import Clock
from broker.counters import Counters
from broker.message import Message, Monotonic

NOT_LOGGED = "not logged: disk"
"""Why they are counted as dropped. (P5)"""
TOLD_AGAIN_S = 60.0
"""After so long it is told again, if it goes on."""

logger = logging.getLogger(__name__)


class Unlogged:
    def __init__(self, counters: Counters, clock: Clock) -> None:
        self.hand_on: Callable[[Sequence[Message]], None] | None = None
        """Gets them, to deliver them at once."""
        self._counters = counters
        self._clock = clock
        self._told_at: Monotonic | None = None

    def add(
        self, messages: Sequence[Message], why: str, ahead: Sequence[Container[str]] = ()
    ) -> None:
        """Do not log these. They are handed on, but not before an older message of their topic: if
        one waits, so that the topic is in `ahead`, they are lost. [MQTT-4.6.0-6]"""
        self._counters.dropped[NOT_LOGGED] += len(messages)
        now = self._clock.monotonic()
        if self._told_at is None or now >= self._told_at + TOLD_AGAIN_S:
            self._told_at = now
            logger.warning(
                "QoS 0 messages are not logged, since %s: %d so far",
                why,
                self._counters.dropped[NOT_LOGGED],
            )
        if self.hand_on is not None:
            alone = [m for m in messages if not any(m.topic in topics for topics in ahead)]
            if alone:
                self.hand_on(alone)
