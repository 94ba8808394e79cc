"""Slowing: clients that are not read from for a while, since their user publishes too fast."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count
from typing import Protocol

from broker.clock import Instant
from broker.message import Monotonic

REFUSED_ABOVE_S = 10.0
"""Whose user is further ahead than this is told so, where that is possible."""
PAUSE_S_MAX = 10.0
"""Of one pause: then what the client has sent is seen, such as that it is gone."""
REASON = "quota"


class Slowed(Protocol):
    """A client that can be kept from sending."""

    def pause_reading(self, reason: str) -> None: ...

    def resume_reading(self, reason: str) -> None: ...

    def failed(self, error: Exception) -> None: ...


class Slowing:
    """`deadline_moved` is called when the deadline may be earlier than it was."""

    def __init__(self, deadline_moved: Callable[[], None]) -> None:
        self._deadline_moved = deadline_moved
        self._slowed: set[Slowed] = set()
        self._due: list[tuple[Monotonic, int, Slowed]] = []
        """A heap; the number lets no two clients be compared."""
        self._number = count()

    def slow(self, publisher: Slowed, seconds: float, now: Monotonic) -> None:
        """Do not read from it for so long; if that is so already, it stays."""
        if publisher in self._slowed:
            return
        self._slowed.add(publisher)
        until = Monotonic(now + min(seconds, PAUSE_S_MAX))
        heapq.heappush(self._due, (until, next(self._number), publisher))
        publisher.pause_reading(REASON)
        self._deadline_moved()

    def deadline(self) -> Monotonic | None:
        return self._due[0][0] if self._due else None

    def expire(self, now: Instant) -> None:
        """Read on from those whose time is over."""
        while self._due and self._due[0][0] <= now.monotonic:
            _, _, publisher = heapq.heappop(self._due)
            self._slowed.discard(publisher)
            try:
                publisher.resume_reading(REASON)
            except Exception as error:
                publisher.failed(error)
