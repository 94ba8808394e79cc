"""Unfinished: what all connections together keep of packets, lines and HTTP requests not yet whole,
and of what came and has to wait: for the disk, or until the peer reads what we send.

Each is bounded, by `packet_bytes_max`; but 20,000 connections with 2 MiB each would be 40 GB. When
they exceed `unfinished_bytes_max`, connections are evicted, those first that have made no progress
for longest. Progress is a step of STEP_BYTES:

- An upload that is slow, but goes on, stays: whoever opens many connections and sends on few of
  them, or a byte now and then on each, is evicted before it. To outlast it, each of theirs would
  have to send as fast as it does, and would then be whole as soon.
- A newcomer is always let in, unlike with reservations, which whoever came first could keep.
- A connection that we do not read, such as a publisher that waits for the disk, is not blamed as
  long as there are others.
- The last one is never evicted: a single packet may be larger than the bound.

What a connection keeps below STEP_BYTES is not counted: 80 MB of 20,000 connections.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

STEP_BYTES = 4096
TOO_MUCH_UNFINISHED = (
    "packets that are not whole, or wait, exceed unfinished_bytes_max, and this one is late"
)
PASSED_OVER_MAX = 64
"""Connections that are passed over at an eviction because we do not read them."""


class Holder(Protocol):
    @property
    def is_held_back(self) -> bool:
        """Whether it is we who do not read it."""
        ...

    def evict(self) -> None:
        """Close it, and keep nothing of what is not whole."""
        ...


@dataclass(slots=True)
class _Kept:
    size: int
    arrived: int
    """Bytes since it last made progress."""


class Unfinished:
    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self._kept: OrderedDict[Holder, _Kept] = OrderedDict()
        """Who made no progress for longest comes first."""
        self.size = 0

    def keeps(self, holder: Holder, size: int, arrived: int) -> bool:
        """`holder` keeps `size` bytes now, after `arrived` more came. Evicts whoever is to make
        room. Returns whether it is counted: then tell of its next read too."""
        if size < STEP_BYTES:
            self.forget(holder)
            return False
        kept = self._kept.get(holder)
        if kept is None:
            self._kept[holder] = _Kept(size, 0)
            self.size += size
        else:
            self.size += size - kept.size
            kept.size = size
            kept.arrived += arrived
            if kept.arrived >= STEP_BYTES:
                kept.arrived = 0
                self._kept.move_to_end(holder)
        while self.size > self.bytes_max and len(self._kept) > 1:
            victim = self._least_progress()
            self.forget(victim)
            victim.evict()
        return holder in self._kept

    def _least_progress(self) -> Holder:
        for holder in islice(self._kept, PASSED_OVER_MAX):
            if not holder.is_held_back:
                return holder
        return next(iter(self._kept))

    def forget(self, holder: Holder) -> None:
        """It keeps nothing any more."""
        kept = self._kept.pop(holder, None)
        if kept is not None:
            self.size -= kept.size
