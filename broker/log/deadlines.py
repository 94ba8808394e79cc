"""Deadlines: of many keys, when each is due, and which is due next."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Generic, TypeVar

from broker.clock import NEVER
from broker.message import Monotonic, WallUs

At = TypeVar("At", Monotonic, WallUs)

OUT_OF_DATE_MAX = 1000
"""Entries of the heap that may be out of date, beside one for each key."""


class Deadlines(Generic[At]):
    """All are on one clock. Setting one costs a step in a heap, so that a million cost no more than
    to keep them."""

    def __init__(self) -> None:
        self._at: dict[str, At] = {}
        self._heap: list[tuple[At, str]] = []
        """An entry that does not agree with `_at` is out of date. NEVER has none."""

    def __len__(self) -> int:
        return len(self._at)

    def __iter__(self) -> Iterator[str]:
        return iter(self._at)

    def __contains__(self, key: str) -> bool:
        return key in self._at

    def get(self, key: str) -> At | None:
        return self._at.get(key)

    def set(self, key: str, at: At) -> None:
        """Instead of what was set for this key before."""
        self._at[key] = at
        if at == NEVER:
            return
        heapq.heappush(self._heap, (at, key))
        if len(self._heap) > 2 * len(self._at) + OUT_OF_DATE_MAX:
            self._heap = [(at, key) for key, at in self._at.items() if at < NEVER]
            heapq.heapify(self._heap)

    def remove(self, key: str) -> bool:
        """Whether it was there."""
        return self._at.pop(key, None) is not None

    def soonest(self) -> At | None:
        """The next deadline, passed or not; None: nothing will ever be due."""
        heap = self._heap
        while heap and self._at.get(heap[0][1]) != heap[0][0]:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def first_due(self, now: At) -> str | None:
        """The key that has been due longest."""
        soonest = self.soonest()
        return self._heap[0][1] if soonest is not None and soonest <= now else None

    def take_due(self, now: At, limit: int) -> list[str]:
        """Remove up to `limit` keys that are due, soonest first."""
        due: list[str] = []
        while len(due) < limit and (soonest := self.soonest()) is not None and soonest <= now:
            _, key = heapq.heappop(self._heap)
            del self._at[key]
            due.append(key)
        return due
