"""Disk space: sees that the last of it is kept for what subscribers acknowledge.

A disk that is quite full stores nothing: not even that a message was acknowledged, or that a
session goes on. So messages stop being taken before that: QoS 1 and 2 are refused or wait, QoS 0 is
delivered and not logged. What is free in the database counts, since what comes goes there first: so
there is room again when messages were removed, though the file has not become smaller.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

from broker.clock import Clock
from broker.errors import StoreError
from broker.log.outage import Outage
from broker.store import Store

LOOK_S, LOOK_NEAR_S = 1.0, 0.05
"""The second while there is less than NEAR times what must be free: a burst may write 100 MB/s."""
NEAR = 10
SPARE_S = 60.0
"""How often it is seen to that the store has its spare room: not at once, a broker that has just
come up has other work ..."""
NEAR_SPARE = 2
"""... and while so many times what must be free is free."""
PART = 20
"""A file system that is small keeps a twentieth free, and not `disk_free_min`."""
AGAIN_PART = 10
"""There is room again when a tenth more is free than must be: or it would come and go."""

logger = logging.getLogger(__name__)


def usage_of(directory: Path) -> tuple[int, int]:
    """Bytes of the file system, and how many of them are free for us. Raises OSError."""
    usage = shutil.disk_usage(directory)
    return usage.total, usage.free


class DiskSpace:
    def __init__(
        self,
        directory: Path,
        least: int,
        store: Store,
        outage: Outage,
        clock: Clock,
        usage: Callable[[Path], tuple[int, int]] = usage_of,
    ) -> None:
        """`least`: so many bytes, or a twentieth of the file system if that is less; 0: none."""
        self.most = least
        """The `least` of a large file system. May be set while it runs."""
        self.free = 0
        """Bytes, those in the database included, when it was last looked at."""
        self.least = 0
        self._directory = directory
        self._store = store
        self._outage = outage
        self._clock = clock
        self._usage = usage

    async def watch_forever(self) -> None:
        """Until cancelled."""
        spare_at = self._clock.monotonic() + SPARE_S
        while True:
            try:
                await self.look()
                if self._clock.monotonic() >= spare_at and self.free > NEAR_SPARE * self.least:
                    spare_at = self._clock.monotonic() + SPARE_S
                    await self._store.removing.keep_spare()
            except (OSError, StoreError) as error:
                logger.debug("how much of the disk is free is not known: %s", error)
            near = self.free < NEAR * self.least and not self._outage.low
            await self._clock.sleep(LOOK_NEAR_S if near else LOOK_S)

    async def look(self) -> None:
        """Raises OSError, StoreError."""
        # A disk that hangs must not hold up the loop.
        size, free = await asyncio.to_thread(self._usage, self._directory)
        self.least = min(self.most, size // PART)
        self.free = free
        if free < NEAR * self.least:  # Else it does not matter.
            self.free = max(0, free + await self._store.removing.free_bytes())
        was_low = bool(self._outage.low)
        if not was_low and self.free < self.least:
            self._outage.room("the broker's disk is nearly full, try again later")
            logger.warning(
                "the disk is nearly full: %s left, and messages are refused below %s"
                " (disk_free_min); subscribers get what there is. Make room on it, or remove"
                " messages: pubsub log trim --before SPEC",
                *(_mb(self.free), _mb(self.least)),
            )
        elif was_low and self.free >= self.least + self.least // AGAIN_PART:
            self._outage.room("")
            logger.warning(
                "there is room on the disk again: %s; messages are taken", _mb(self.free)
            )

    def status(self) -> dict[str, object]:
        return {"free": self.free, "least": self.least, "low": bool(self._outage.low)}


def _mb(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"
