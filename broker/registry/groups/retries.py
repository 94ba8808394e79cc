"""Retries: the messages that one group tries again later, as far as they are in memory.

Each is a row in the store, in the order in which they are due; memory has the first RETRIES_MAX of
them. What lies behind `_through` is in the store alone, and is read when these are used up: so a
group that 100,000 messages wait in costs no more than one with a thousand.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from broker.documents.queues import RetryDocument
from broker.message import Lease, Offset, ServedUs

RETRIES_MAX = 2000
"""About 150 bytes each."""

Place = tuple[int, int]
"""Of a retry: when it is due, and its offset."""
_ALL: Place = (1 << 63, 0)


@dataclass(slots=True, frozen=True)
class Failure:
    """A lease that did not end well. `counts`: it was a failed attempt; `final`: the last."""

    lease: Lease
    reason: str
    worker: str
    counts: bool = True
    final: bool = False


class Retry(NamedTuple):
    """As a `RetryDocument`, of a group that is known."""

    due_at_us: ServedUs
    offset: Offset
    attempts: int
    holder: str = ""

    def document(self, group: str) -> RetryDocument:
        return RetryDocument(group, self.due_at_us, self.offset, self.attempts, self.holder)

    @property
    def place(self) -> Place:
        return self.due_at_us, self.offset


class Retries:
    def __init__(self) -> None:
        self._waiting: list[Retry] = []
        """In order."""
        self._through: Place = (-1, 0)
        """Everything in the store up to here is in memory, or was taken."""
        self._added: list[Retry] | None = None
        """What came while a part is read from the store; None: none is."""
        self._removed: set[Place] = set()

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def used_up(self) -> bool:
        """Whether the next are to be read from the store."""
        return not self._waiting and self._through != _ALL and self._added is None

    def due_at_us(self) -> ServedUs | None:
        """When the first is due; None: none is in memory."""
        return self._waiting[0].due_at_us if self._waiting else None

    def add(self, retry: Retry) -> None:
        """Its row is on its way into the store."""
        if self._added is not None:
            self._added.append(retry)
        if retry.place <= self._through and self._index(retry) is None:
            insort(self._waiting, retry)
            self._cut()

    def _index(self, retry: Retry) -> int | None:
        at = bisect_left(self._waiting, retry)
        return at if self._waiting[at : at + 1] == [retry] else None

    def _cut(self) -> None:
        if len(self._waiting) > RETRIES_MAX:
            del self._waiting[RETRIES_MAX:]
            self._through = self._waiting[-1].place

    def take_due(self, now_us: ServedUs, limit: int) -> list[Retry]:
        """Up to `limit` of those that are due, the first ones first."""
        end = min(limit, bisect_left(self._waiting, (now_us + 1,)))
        taken, self._waiting = self._waiting[:end], self._waiting[end:]
        return taken

    def take(self, retry: Retry) -> bool:
        """Whether it waits here; it does no more."""
        at = self._index(retry)
        if at is None:
            return False
        del self._waiting[at]
        return True

    def held_by(self, holder: str) -> list[Retry]:
        """Those that this client had when the broker stopped, due or not."""
        return [retry for retry in self._waiting if retry.holder == holder]

    def remove(self, retry: Retry) -> None:
        """It is over. Its row goes, too."""
        if self._added is not None:
            self._removed.add(retry.place)
        self.take(retry)

    def read_begins(self) -> Place | None:
        """A part of the store is to be read, behind this; None: from the beginning."""
        self._added, self._removed = [], set()
        return self._through if self._through[0] >= 0 else None

    def read(
        self,
        documents: Sequence[RetryDocument],
        *,
        complete: bool,
        taken: Container[Place] = (),
    ) -> None:
        """These are the next in the store. `complete`: there are no more; `taken`: from here, and
        not over."""
        found: dict[Place, Retry] = {}
        for document in documents:
            retry = Retry(document.due_at_us, document.offset, document.attempts, document.holder)
            found[retry.place] = retry
        last, before = max(found, default=self._through), self._through
        through = _ALL if complete else last
        for retry in self._added or ():
            if before < retry.place <= through:
                found[retry.place] = retry
        over = self._removed
        new = [r for place, r in found.items() if place not in over and place not in taken]
        self._waiting = sorted({*self._waiting, *new})
        self._through = through
        self._added, self._removed = None, set()
        self._cut()

    def not_read(self) -> None:
        """The store could not be read."""
        self._added, self._removed = None, set()
