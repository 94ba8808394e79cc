"""Trims: what the operator has removed by hand (`pubsub log trim`), one at a time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Sequence
from pathlib import Path

from broker import tasks
from broker.clock import Clock, SystemClock
from broker.counters import Counters
from broker.errors import QuotaExceeded, StoreError, StoreFull
from broker.log.log_time import LogTime
from broker.log.upkeep.retention import Retention
from broker.log.upkeep.sweep import ByHand, Sweep
from broker.message import Message, Offset
from broker.registry.upkeep.keeping import Keeping, Selected
from broker.replay.before import first_kept
from broker.session.position import LivePosition
from broker.session.session import Session
from broker.store import Store
from broker.store.sqlite.store import SqliteStore

logger = logging.getLogger(__name__)

FULL = f"{StoreFull.reason}; removing needs room to write, too: make some there, then do it again"


class Trims:
    def __init__(self, store: Store, retention: Retention, keeping: Keeping, clock: Clock) -> None:
        self._store = store
        self._retention = retention
        self._keeping = keeping
        self._clock = clock
        self._running: asyncio.Task[None] | None = None
        self._told: dict[str, object] = {}
        self.filters: Sequence[str] = ()
        """Of the one that is under way, or was the last; none: every topic."""

    async def begin(
        self, spec: str, filters: Sequence[str], *, unread: bool, dry_run: bool
    ) -> None:
        """Begin to remove what lies before the place `spec`, on topics that match a filter; none:
        on all topics. `unread`: also what a durable subscriber has not acknowledged; it is told.
        `dry_run`: only find out what that is.

        Raises TopicFilterInvalid, ReplaySpecInvalid, QuotaExceeded: one is under way; StoreError.
        """
        if self._running is not None:
            raise QuotaExceeded("messages are being removed already: wait until that is done")
        selected = Selected(filters, self._keeping)
        before = await first_kept(self._store, spec, filters, self._clock.wall_us())
        if self._running is not None:
            raise QuotaExceeded("messages are being removed already: wait until that is done")
        self.filters = [*filters]
        self._told = {"done": False, "before": before, "dry_run": dry_run}
        wanted = ByHand(before, unread, dry_run)
        self._running = tasks.start(self._run(selected, wanted), self._failed)

    async def _run(self, selected: Selected, wanted: ByHand) -> None:
        try:
            sweep = await self._retention.trim(selected, wanted)
        except StoreError as error:
            why = FULL if isinstance(error, StoreFull) else error.reason
            self._told |= {"done": True, "error": why}
            logger.warning("not all is removed that was to be: %s", error)
        else:
            self._told |= {"done": True} | _amounts(sweep)
        finally:
            self._told |= {"done": True, "log_start": self._store.log_start}
            self._running = None

    def _failed(self, error: Exception) -> None:
        self._told |= {"error": "a mistake in the broker: see what it said on standard error"}
        logger.critical("messages are not removed by hand", exc_info=error)

    def cancel(self) -> None:
        """What is removed stays so."""
        if self._running is not None:
            self._running.cancel()
            self._running = None
            self._told |= {"done": True, "error": "it was interrupted"}

    def state(self) -> dict[str, object]:
        """How far the last one is; `done` when it is over."""
        sweep = self._retention.by_hand
        return self._told | (_amounts(sweep) if sweep is not None else {})


def _amounts(sweep: Sweep) -> dict[str, object]:
    return {
        "before": sweep.before,
        "removed": sweep.removed.messages,
        "bytes": sweep.removed.bytes,
        "unread": sweep.unread_removed,
        "kept_unread": sweep.left,
    }


class _Nobody:
    """The audience of a log that no broker runs on."""

    def __init__(self, through: Offset) -> None:
        self.live = LivePosition(through)
        self.subscribers: tuple[Session, ...] = ()

    def offer_beside(self, batch: Sequence[Message]) -> None:
        """There is nobody."""

    def removed(self, offsets: Collection[Offset]) -> None:
        """Nothing waits in memory."""


class AtRest:
    """The log at `path` while no broker runs, as `async with`, and its trims."""

    def __init__(self, path: Path) -> None:
        self._store = SqliteStore(path)
        self.trims: Trims

    async def __aenter__(self) -> Trims:
        """Raises StoreError."""
        await self._store.open()
        clock = SystemClock()
        nobody = _Nobody(self._store.high_watermark)
        keeping = Keeping((), self._store, nobody, Counters(), clock)
        retention = Retention(
            *(self._store, LogTime(clock), clock, keeping, lambda operations: None), interval_s=1
        )
        return Trims(self._store, retention, keeping, clock)

    async def __aexit__(self, *raised: object) -> None:
        await self._store.close()
