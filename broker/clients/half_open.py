"""HalfOpen: a line client that has no more to say and still reads, as `printf ... | nc -N` does.

One that is gone looks the same, and the operating system takes bytes for it, too. So from then on a
message counts as acknowledged when it has arrived at the peer's operating system, which answers
with a reset if nobody is there to read it. That is looked at from time to time.
"""

from __future__ import annotations

import math
from typing import Protocol

from broker.clients.faces import Transport
from broker.message import Monotonic

SOON_S = 0.1
"""How often to look while something is on its way ..."""
SELDOM_S = 2.0
"""... and while nothing is."""


class TellingTransport(Transport, Protocol):
    """A transport that can tell more of its peer than whether it takes bytes."""

    def watch_peer(self) -> bool:
        """Notice a peer that goes away silently. False: the system does not tell what arrived."""
        ...

    def has_arrived(self) -> bool:
        """Whether all that was written has arrived at the peer."""
        ...

    def is_gone(self) -> bool:
        """Whether the connection is over, though nobody told."""
        ...


class HalfOpen:
    """`begun` once the peer has ended its side, and as long as it is delivered to."""

    def __init__(self, transport: TellingTransport) -> None:
        self.begun = False
        self._transport = transport
        self._look_at = Monotonic(math.inf)

    def begin(self, now: Monotonic) -> bool:
        """Whether that is possible."""
        self.begun = self._transport.watch_peer()
        if self.begun:
            self._look_again(now, SOON_S)
        return self.begun

    def deadline(self) -> Monotonic | None:
        """When to `look`."""
        return self._look_at if self.begun else None

    def written(self, now: Monotonic) -> None:
        """Something is on its way."""
        if self.begun and self._look_at > now + SOON_S:
            self._look_again(now, SOON_S)

    def look(self, now: Monotonic) -> bool:
        """Whether all that was written has arrived. A connection that is gone is cut off."""
        if not self.begun or now < self._look_at:
            return False
        arrived = self._transport.has_arrived()  # First, as also a reset leaves nothing to arrive.
        if self._transport.is_gone():
            self._transport.abort()
            return False
        self._look_at = Monotonic(now + (SELDOM_S if arrived else SOON_S))
        return arrived

    def _look_again(self, now: Monotonic, after_s: float) -> None:
        self._look_at = Monotonic(now + after_s)
        self._transport.deadline_moved()
