"""Expiring: connections that may be here until a certain time."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count

from broker.message import Monotonic
from broker.registry.access.users import Guest

TAKEN_AT_ONCE_MAX = 50
"""Connections that one turn of the loop ends: about 5 ms."""
STALE_MAX = 1000
"""Entries of connections that are gone, beside as many as there are connections."""


class Expiring:
    def __init__(self, deadline_moved: Callable[[], None]) -> None:
        self._deadline_moved = deadline_moved
        self._at: dict[Guest, Monotonic] = {}
        self._heap: list[tuple[Monotonic, int, Guest]] = []
        self._numbers = count()

    def add(self, guest: Guest, at: Monotonic) -> None:
        self._at[guest] = at
        heapq.heappush(self._heap, (at, next(self._numbers), guest))
        if len(self._heap) > 2 * len(self._at) + STALE_MAX:
            self._heap = [entry for entry in self._heap if self._at.get(entry[2]) == entry[0]]
            heapq.heapify(self._heap)
        self._deadline_moved()

    def remove(self, guest: Guest) -> None:
        self._at.pop(guest, None)

    def deadline(self) -> Monotonic | None:
        while self._heap and self._at.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def take_due(self, now: Monotonic) -> list[Guest]:
        """Some of those whose time has come. They are forgotten."""
        due: list[Guest] = []
        while len(due) < TAKEN_AT_ONCE_MAX and (at := self.deadline()) is not None and at <= now:
            _, _, guest = heapq.heappop(self._heap)
            del self._at[guest]
            due.append(guest)
        return due
