"""Outbox: the messages offered to one session and not yet taken, and what it tells as missing."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from broker.message import Offset, Outgoing, cost_of

GAPS_MAX = 16
"""Ranges of missing offsets that one message tells of. What is more goes into the last of them."""


def bounded(gaps: Sequence[range]) -> tuple[range, ...]:
    """So many as one message tells of; in their order, one at least."""
    kept = [*gaps[:GAPS_MAX]]
    kept[-1] = range(kept[-1].start, gaps[-1].stop)
    return tuple(kept)


def with_missing(
    outgoing: Sequence[Outgoing], missing: Sequence[range]
) -> tuple[Sequence[Outgoing], list[range]]:
    """The messages, each with the missing offsets right before it, beside those that it tells of
    already; and what lies after the last."""
    if not missing:
        return outgoing, []
    told: list[Outgoing] = []
    left = [*missing]
    for message, grant in outgoing:
        here = 0
        while here < len(left) and left[here].start < message.offset:
            here += 1
        if here:
            gaps = bounded([*left[:here], *grant.missing])
            grant, left = replace(grant, missing=gaps), left[here:]
        told.append((message, grant))
    return told, left


class Outbox(deque[Outgoing]):
    """Whoever takes from it subtracts from `size`."""

    __slots__ = ("size", "tells", "untold")

    def __init__(self) -> None:
        super().__init__()
        self.size = 0
        """Bytes."""
        self.tells = False
        """Whether one of the messages may tell of missing offsets."""
        self.untold: list[range] = []
        """Missing offsets that the next message is to tell of."""

    def miss(self, missing: Iterable[range]) -> None:
        """The next message is to tell that these offsets are missing, damaged or removed."""
        self.untold += missing

    def offer(self, outgoing: Sequence[Outgoing], size: int) -> None:
        """Add messages, `size` bytes."""
        if self.untold and outgoing:
            outgoing, self.untold = with_missing(outgoing, self.untold)
            self.tells = True
        self.extend(outgoing)
        self.size += size

    def withhold(self, may_receive: Callable[[str], bool]) -> int:
        """Take out what may not be received any more: how many. What these were to tell, the next
        ones tell."""
        kept = [entry for entry in self if may_receive(entry[0].topic)]
        withheld = len(self) - len(kept)
        if withheld:
            left = [gap for m, grant in self if not may_receive(m.topic) for gap in grant.missing]
            untold, tells = self.untold, self.tells
            told, left = with_missing(kept, left)
            self.clear()
            self.offer(told, cost_of([message for message, _ in told]))
            self.untold, self.tells = [*left, *untold], tells
        return withheld

    def clear(self) -> None:
        super().clear()
        self.size = 0
        self.tells = False
        self.untold = []

    def first(self) -> Offset | None:
        """The first offset that was not taken, or not told as missing; None: all were."""
        if self:
            message, grant = self[0]
            return Offset(grant.missing[0].start) if grant.missing else message.offset
        return Offset(self.untold[0].start) if self.untold else None
