"""Takeovers: notices clients that take one client identifier from each other again and again.

Each takeover closes a connection, whose client connects again: two of them would do so for ever.
"""

from __future__ import annotations

import logging
from collections import Counter

from broker.message import Monotonic
from broker.registry.faces import Owner

logger = logging.getLogger(__name__)

WINDOW_S = 60.0
FIGHT = 3
"""So many takeovers within a window are told. One client that comes back makes one."""
IDENTIFIERS_MAX = 10_000
"""Counted in one window; of the others nothing is told until the next."""


def let_go(owner: Owner) -> None:
    """Another connection has its session. What it makes of that is not the newcomer's fault."""
    try:
        owner.taken_over()
    except Exception as error:
        owner.failed(error)


class Takeovers:
    """How often each client identifier was taken over in the current window."""

    def __init__(self) -> None:
        self._ends_at = Monotonic(0.0)
        self._counts: Counter[int] = Counter()
        """By the hash of the identifier, which may be 64 KiB long."""

    def taken_over(self, client_id: str, now: Monotonic) -> None:
        """Tell about it if it was often; once in a window."""
        if now >= self._ends_at:
            self._ends_at = Monotonic(now + WINDOW_S)
            self._counts.clear()
        key = hash(client_id)
        if key in self._counts or len(self._counts) < IDENTIFIERS_MAX:
            self._counts[key] += 1
        if self._counts[key] == FIGHT:
            logger.warning(
                "client identifier %r was taken over %d times within %d s: "
                "do several clients use it? Each needs its own",
                *(client_id, FIGHT, WINDOW_S),
            )
