"""Expiring: connections that may be here until a certain time of the wall clock, which may jump."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count

from broker.clock import US, Instant
from broker.message import Monotonic, WallUs
from broker.registry.access.users import Guest

TAKEN_AT_ONCE_MAX = 50
"""Connections that one turn of the loop ends: about 5 ms."""
LOOK_S = 30.0
"""How often the wall clock is looked at: a jump counts after so long."""
STALE_MAX = 1000
"""Entries of connections that are gone, beside as many as there are connections."""


class Expiring:
    def __init__(self, deadline_moved: Callable[[], None]) -> None:
        self._deadline_moved = deadline_moved
        self._at: dict[Guest, float] = {}
        self._heap: list[tuple[float, int, Guest]] = []
        """Until when, in seconds of Unix time."""
        self._numbers = count()
        self._looked = Instant(Monotonic(0), WallUs(0))

    def add(self, guest: Guest, at_s: float, now: Instant) -> None:
        self._at[guest] = at_s
        self._looked = now
        heapq.heappush(self._heap, (at_s, next(self._numbers), guest))
        if len(self._heap) > 2 * len(self._at) + STALE_MAX:
            self._heap = [entry for entry in self._heap if self._at.get(entry[2]) == entry[0]]
            heapq.heapify(self._heap)
        self._deadline_moved()

    def remove(self, guest: Guest) -> None:
        self._at.pop(guest, None)

    def deadline(self) -> Monotonic | None:
        """When to look again."""
        if (first_s := self._first_s()) is None:
            return None
        left_s = first_s - self._looked.wall_us / US
        return self._looked.after(min(max(left_s, 0.0), LOOK_S))

    def take_due(self, now: Instant) -> list[Guest]:
        """Some of those whose time has come. They are forgotten."""
        due: list[Guest] = []
        self._looked = now
        now_s = now.wall_us / US
        while len(due) < TAKEN_AT_ONCE_MAX:
            if (first_s := self._first_s()) is None or first_s > now_s:
                break
            _, _, guest = heapq.heappop(self._heap)
            del self._at[guest]
            due.append(guest)
        return due

    def _first_s(self) -> float | None:
        while self._heap and self._at.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None
