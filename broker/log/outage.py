"""Outage: the time in which nothing can be stored, since the store is full or locked."""

from __future__ import annotations

import logging

from broker.clock import Clock
from broker.errors import StoreBusy, StoreError, StoreFull
from broker.message import Monotonic

FULL_RETRY_S = 1.0
"""How often a store that is full, or locked, is tried again."""

logger = logging.getLogger(__name__)


class Outage:
    def __init__(self, clock: Clock) -> None:
        self.why: type[StoreError] | None = None
        """StoreFull or StoreBusy; None: there is no outage."""
        self._clock = clock
        self._retry_at = clock.monotonic()

    def goes_on(self, error: StoreFull | StoreBusy) -> None:
        """A commit failed with this, maybe the first."""
        self._retry_at = Monotonic(self._clock.monotonic() + FULL_RETRY_S)
        if self.why is not type(error):
            self.why = type(error)
            logger.warning("nothing is stored or acknowledged until this is over: %s", error)

    def over(self) -> None:
        """Something was stored."""
        self.why = None
        logger.warning("messages are stored and acknowledged again")

    @property
    def is_full(self) -> bool:
        """Whether the store is full, and it is not time to try again."""
        return self.why is StoreFull and self._clock.monotonic() < self._retry_at
