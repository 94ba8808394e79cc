"""Served: what a session was handed before its place in the log came to it.

QoS 0 is delivered as it comes, and logged later. So a session may have had messages that lie above
its place. Whoever reads the log for it leaves them out, and its cursor names them, in the same
commit: neither a new connection nor a crash repeats them.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence

from broker.documents import BEFORE_ALL, NOT_YET, Place
from broker.handed_on import HandedOn
from broker.message import Message, Offset


class Served:
    """Of one session, or of all that had the same."""

    __slots__ = ("_filled", "_number", "_places", "_ranges", "parts")

    def __init__(
        self, number: int = 0, parts: Iterable[HandedOn] = (), ranges: Sequence[range] = ()
    ) -> None:
        """Of these `parts` all runs up to `number`, and what is in `ranges`."""
        self._number = number
        self.parts = [*parts]
        self._ranges = [*ranges]
        self._places: list[tuple[Place, Place]] = []
        self._filled: tuple[Offset, list[range]] | None = None

    def __len__(self) -> int:
        """How many ranges it can be."""
        return len(self.parts) + len(self._ranges)

    def with_more(self, number: int, parts: Iterable[HandedOn]) -> Served:
        """The same and of these parts, too, all runs up to `number`, which is not less."""
        more = [p for p in parts if p.begins_by(number) and p not in self.parts]
        if not (self.parts or more):
            return self
        return Served(number, [*self.parts, *more], self._ranges)

    def settled(self) -> Served:
        """The same, without the parts if the offsets of all are known."""
        if not self.parts or any(part.last == NOT_YET for part in self.parts):
            return self
        return Served(ranges=self.ranges())

    def ranges(self) -> list[range]:
        """The offsets that are known, in order and joined where they touch."""
        if self.parts:
            found = [part.offsets(self._number) for part in self.parts]
            return joined([*self._ranges, *filter(None, found)])
        return self._ranges

    def commit_begins(self) -> bool:
        """Whether the commit that begins has more of it, whose offsets it will decide."""
        between = [part.between(self._number) for part in self.parts]
        self._places = [places for places in between if places is not None]
        self._filled = None
        return bool(self._places)

    def filled_in(self) -> list[range]:
        """As `ranges`, with what the commit that runs has of it: that has decided the offsets."""
        if not self._places:
            return self.ranges()
        first = self._places[0][0].offset
        if self._filled is None or self._filled[0] != first:
            more = [range(a.offset, b.offset + 1) for a, b in self._places]
            self._filled = first, joined([*self.ranges(), *more])
        return self._filled[1]

    def left_out(self, messages: list[Message]) -> list[Message]:
        """These, in the order of the log, without those that were served."""
        ranges = self.ranges()
        if not (ranges and messages) or ranges[-1].stop <= messages[0].offset:
            return messages
        stops = [served.stop for served in ranges]
        left: list[Message] = []
        for message in messages:
            at = bisect_right(stops, message.offset)
            if at == len(ranges) or message.offset < ranges[at].start:
                left.append(message)
        return left

    def through(self) -> Offset:
        """The last offset that is known; 0: none is."""
        ranges = self.ranges()
        return Offset(ranges[-1].stop - 1) if ranges else BEFORE_ALL


NOTHING = Served()


def joined(ranges: Iterable[range]) -> list[range]:
    """The same offsets in as few ranges as possible, in order."""
    found: list[range] = []
    for part in sorted(ranges, key=lambda part: part.start):
        if found and part.start <= found[-1].stop:
            found[-1] = range(found[-1].start, max(found[-1].stop, part.stop))
        else:
            found.append(part)
    return found
