"""Losses: counts, and tells from time to time, how much QoS 0 the disk has no room or no time for.

It was delivered to whoever was there. No later subscriber will find it in the log.
"""

from __future__ import annotations

import logging

from broker.clock import Clock
from broker.counters import Counters
from broker.message import Monotonic

NOT_LOGGED = "not logged: disk"
"""Why they are counted as dropped. (P5)"""
TOLD_AGAIN_S = 60.0
"""After so long it is told again, if it goes on."""

logger = logging.getLogger(__name__)


class Losses:
    def __init__(self, counters: Counters, clock: Clock) -> None:
        self._counters = counters
        self._clock = clock
        self._told_at: Monotonic | None = None

    def note(self, messages: int, why: str) -> None:
        """So many messages are not logged."""
        if not messages:
            return
        self._counters.dropped[NOT_LOGGED] += messages
        now = self._clock.monotonic()
        if self._told_at is None or now >= self._told_at + TOLD_AGAIN_S:
            self._told_at = now
            logger.warning(
                "QoS 0 messages are not logged, since %s: %d so far",
                why,
                self._counters.dropped[NOT_LOGGED],
            )
