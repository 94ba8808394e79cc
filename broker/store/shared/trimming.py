"""Trimming: how much a shared log keeps, and which of its records may go.

Each copy has everything that counted, and all that decides of what comes (writers, owners). So the
log is there only for copies that are behind. It keeps about `keep_bytes`, or half of what its
engine takes if that is less; a copy that is further behind, and a new one, begins with a backup of
another broker's copy (`begins_later`).

- Nothing goes that a living broker may not have in its copy. It appends when it has read its append
  before; another one later, that one is in its copy. So of each broker counts where it was heard of
  before two more appends. One that has just come stops the trimming until then.
- One broker trims: the first by name of those alive. If two take themselves for it, each still
  removes only what all have.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping

from broker.store.shared.follower import Follower
from broker.store.shared.shared_log import LogInfo, SharedLog

KEEP_BYTES = 10 << 30
HEARD_OF = 3
"""Appends of a broker: when the last of them is there, the first is in its copy."""
SPARE = 16
"""One part in so many more is removed, so that it is not done for every record."""

logger = logging.getLogger(__name__)


class Trimming:
    def __init__(self, log: SharedLog, keep_bytes: int) -> None:
        self._log = log
        self._keep_bytes = keep_bytes
        self.found: LogInfo | None = None
        """The log, when it was looked at last."""
        self._heard: dict[str, deque[int]] = {}
        """Positions of newest appends, by broker."""

    async def look(self, follower: Follower, others: Mapping[str, int]) -> None:
        """Call it now and then. Raises StoreError."""
        self._hear(others)
        self.found = info = await self._log.info()
        if follower.broker_id <= min(others, default=follower.broker_id):
            await self._trim(info, follower.log_id, follower.goes_on_after)

    def _hear(self, others: Mapping[str, int]) -> None:
        """Where the newest append of each of the other living brokers is."""
        for broker in self._heard.keys() - others.keys():
            del self._heard[broker]
        for broker, position in others.items():
            positions = self._heard.setdefault(broker, deque(maxlen=HEARD_OF))
            if not positions or positions[-1] != position:
                positions.append(position)

    async def _trim(self, info: LogInfo, log_id: str, through: int) -> None:
        """Remove what is too much, up to `through` at most. Raises StoreError."""
        for positions in self._heard.values():
            through = min(through, positions[0] if len(positions) == HEARD_OF else 0)
        keep = self._keep_bytes
        if info.bytes_max is not None:
            keep = min(keep, info.bytes_max // 2)
        if info.bytes <= keep or info.log_id != log_id:
            return
        records = info.newest - info.oldest + 1
        too_many = records * (info.bytes - keep + keep // SPARE) // info.bytes
        # By their mean size: so not all at once, if the oldest are larger.
        before = min(info.oldest + min(too_many, records // 2), through + 1)
        if before > info.oldest:
            await self._log.trim(before)
            logger.info("the shared log begins at record %d: all brokers have the rest", before)
