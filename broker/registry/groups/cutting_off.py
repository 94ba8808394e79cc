"""Cutting off: the members of a group that cannot be served are cut off, in several turns of the
loop if they are many. Nothing is leased meanwhile, and whoever joins waits."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from broker import tasks
from broker.delivery.routes import parts
from broker.session.session import Session

CUT_OFF_AT_ONCE_MAX = 100
"""Members that are cut off in one turn of the loop: about 10 ms."""

logger = logging.getLogger(__name__)


class CuttingOff:
    """Of one group, which is joined under `lock`."""

    def __init__(self, group: str, lock: asyncio.Lock) -> None:
        self.under_way = False
        self._group = group
        self._lock = lock
        self._task: asyncio.Task[None] | None = None

    def cut_off(self, members: Sequence[Session], cut_one: Callable[[Session], None]) -> None:
        self.under_way = True
        first, *more = [*parts(members, CUT_OFF_AT_ONCE_MAX)] or [[]]
        if more:
            self._task = tasks.start(self._more(more, cut_one), self._failed)
        for member in first:
            cut_one(member)
        self.under_way = bool(more)

    async def _more(
        self, more: Sequence[Sequence[Session]], cut_one: Callable[[Session], None]
    ) -> None:
        async with self._lock:
            for part in more:
                await asyncio.sleep(0)
                for member in part:
                    cut_one(member)
            self.under_way = False

    def _failed(self, error: Exception) -> None:
        logger.critical("members of group %s are not cut off", self._group, exc_info=error)
