"""Handed on: QoS 0 messages that were delivered, and that are still on their way into the log."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Sequence

from broker.documents import BEFORE_ALL, NOT_YET, Place
from broker.message import Message, Offset


class HandedOn:
    """QoS 0 messages that were delivered as they came, side by side on their way into the log.

    They came in *runs*, one for each read of a publisher's socket. Runs are numbered as they come.
    So one number tells what a session was handed: all runs up to it that it wanted.
    """

    __slots__ = (
        "_between",
        "_ends",
        "_numbers",
        "_offsets",
        "after",
        "first",
        "last",
        "messages",
        "places",
        "size",
    )

    def __init__(self) -> None:
        self.messages: list[Message] = []
        """Empty once they are routed. Their offsets stay."""
        self.size = 0
        """Bytes in memory."""
        self.after: int | None = None
        """In the commit that runs they come right after so many messages; None: in none."""
        self.first = self.last = NOT_YET
        """Their offsets, once they are committed."""
        self._numbers = array("q")
        self._ends = array("q")
        """Of each run: its number, and how many messages there are up to its end."""
        self._offsets = array("q")
        """The first offset and, for each run, its last; empty while they are not committed."""
        self.places: list[Place] = []
        """Those that were asked for, of the commit that runs ..."""
        self._between: dict[int, tuple[Place, Place]] = {}
        """... by how many messages lie between them."""

    def add(self, number: int, messages: Sequence[Message], size: int) -> None:
        self.messages += messages
        self.size += size
        self._numbers.append(number)
        self._ends.append(len(self.messages))

    def begins_by(self, number: int) -> bool:
        """Whether it has the run with this number, or one before it."""
        return self._numbers[0] <= number

    def later(self, number: int) -> list[Message]:
        """The messages of the runs above this number."""
        return self.messages[self._count(number) :]

    def _count(self, number: int) -> int:
        """How many messages the runs up to this number have."""
        runs = bisect_right(self._numbers, number)
        return self._ends[runs - 1] if runs else 0

    def commit_begins(self, after: int) -> None:
        self.after = after

    def between(self, number: int) -> tuple[Place, Place] | None:
        """In the commit that runs: the places right after the first message, and after the last, of
        the runs up to this number. None if there are none."""
        count = self._count(number)
        if self.after is None or not count:
            return None
        between = self._between.get(count)
        if between is None:
            between = self._between[count] = Place(self.after + 1), Place(self.after + count)
            self.places += between
        return between

    def committed(self) -> None:
        """The store has set the offsets of the messages."""
        self.after = None
        self.places = []
        self._between = {}
        offsets = [self.messages[end - 1].offset for end in self._ends]
        self.first, self.last = self.messages[0].offset, self.messages[-1].offset
        self._offsets = array("q", [self.first, *offsets])

    def not_committed(self) -> None:
        self.after = None
        self.places = []
        self._between = {}

    def offsets(self, number: int) -> range:
        """Those of the runs up to this number, as far as they are committed."""
        runs = bisect_right(self._numbers, number)
        if not (self._offsets and runs):
            return range(0)
        return range(self._offsets[0], self._offsets[runs] + 1)

    def routed(self) -> None:
        """Only the offsets are needed from here on."""
        self.messages = []


class AheadOfLog:
    """What was handed on and is not routed, in the order of the log."""

    __slots__ = ("committed", "number", "parts", "routed_through", "state")

    def __init__(self) -> None:
        self.number = 0
        """Of the newest run."""
        self.parts: deque[HandedOn] = deque()
        self.state = 0
        """Changes with everything that changes which parts there are, or how far they came."""
        self.committed: deque[tuple[Offset, Callable[[], set[str]]]] = deque()
        """What is behind none of it: batches that are not routed, with messages that were not
        handed on. Of each the last offset, and what tells the topics of these messages."""
        self.routed_through = BEFORE_ALL
        """Every message of the log up to this offset was routed."""

    def forget_routed(self) -> None:
        """What is routed is not ahead of anything any more."""
        while self.parts and self.parts[0].last <= self.routed_through:
            self.parts.popleft().routed()
            self.state += 1
        while self.committed and self.committed[0][0] <= self.routed_through:
            self.committed.popleft()
