"""Outage: the time in which nothing can be stored, since the store is full or locked.

Before it is full, what is left is kept for what subscribers acknowledge (`low`): then no messages
are taken, and all else is stored.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from broker.clock import Clock
from broker.counters import Counters
from broker.errors import QuotaExceeded, StoreBusy, StoreError, StoreFull, StoreUnavailable
from broker.log.waiting import Waiting
from broker.message import Monotonic

FULL_RETRY_S = 1.0
"""How often a store that is full, or locked, is tried again."""

DISK_LOW = "refused: no room on the disk"
"""Why they are counted as dropped: their publishers were told. (P5)"""

logger = logging.getLogger(__name__)


class Outage:
    def __init__(self, clock: Clock) -> None:
        self.why: type[StoreError] | None = None
        """StoreFull or StoreBusy; None: there is no outage."""
        self.low = ""
        """Why no messages are to be taken, in words for clients; empty: they are."""
        self._waiting: dict[Callable[[], None], None] = {}
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

    def not_taken(self, waiting: Waiting, within_s: float) -> StoreError:
        """What a stop ends with that waited so long: to whoever asked for it that is no success."""
        error = self.why or StoreUnavailable
        return error(f"in {within_s:g} s the log did not take {waiting}")

    @property
    def is_full(self) -> bool:
        """Whether the store is full, or nearly, and it is not time to try again."""
        full = self.why is StoreFull and self._clock.monotonic() < self._retry_at
        return full or bool(self.low)

    def room(self, why_not: str) -> None:
        """Whether messages may be taken (`why_not` is empty) is known anew."""
        self.low = why_not
        if not why_not:
            waiting, self._waiting = self._waiting, {}
            for go_on in waiting:
                go_on()

    def require_room(self, messages: int, counters: Counters) -> None:
        """Raises QuotaExceeded: none may be taken. So many are counted."""
        if self.low:
            counters.dropped[DISK_LOW] += messages
            raise QuotaExceeded(self.low)

    def when_room(self, go_on: Callable[[], None]) -> None:
        """Call this, which raises nothing, once when messages may be taken again."""
        self._waiting[go_on] = None

    def forget(self, go_on: Callable[[], None]) -> None:
        """Do not call it."""
        self._waiting.pop(go_on, None)
