"""Flapping: a client identifier that connects over and over, as two clients do that fight over one.
It counts for the user alone who comes with it: others cannot make its owner wait.

After FREE connections within FORGOTTEN_AFTER_S each waits until PAUSE_S after the one before. Who
leaves with DISCONNECT has done what it came for: a loop of commands under one name is not slowed.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from broker.message import Monotonic

FREE = 100
FORGOTTEN_AFTER_S = 30.0
PAUSE_S = 1.0
WAIT_MAX_S = 10.0
IDENTIFIERS_MAX = 10_000
"""Beyond, the one that came longest ago is forgotten. About 200 bytes each, however long it is."""

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Comings:
    since: Monotonic
    next_at: Monotonic
    count: int = 0


class Flapping:
    def __init__(self) -> None:
        self._by_identifier: dict[int, _Comings] = {}
        """By the hash of user and client identifier. The one that came last comes last."""

    def wait_s(self, user: str, client_id: str, now: Monotonic) -> float:
        """It connects: how long that has to wait."""
        key = hash((user, client_id))
        known = self._by_identifier.pop(key, None)
        if known is None or now - known.since > FORGOTTEN_AFTER_S:
            known = _Comings(now, now)
        self._by_identifier[key] = known
        if len(self._by_identifier) > IDENTIFIERS_MAX:
            del self._by_identifier[next(iter(self._by_identifier))]
        known.count += 1
        if known.count <= FREE:
            return 0.0
        if known.count == FREE + 1:
            logger.warning(
                "client %r has connected %d times in %d s: it has to wait before it comes again",
                *(client_id, known.count, now - known.since),
            )
        known.since = now  # Only a pause ends it.
        known.next_at = Monotonic(min(max(now, known.next_at) + PAUSE_S, now + WAIT_MAX_S))
        return known.next_at - now

    def left(self, user: str, client_id: str) -> None:
        """It sent DISCONNECT: that coming does not count."""
        known = self._by_identifier.get(hash((user, client_id)))
        if known is not None and known.count:
            known.count -= 1
