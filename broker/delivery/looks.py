"""Looks: how delivery reads from the store, for one session after the other."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar
from weakref import WeakValueDictionary

from broker.clock import Clock
from broker.errors import StoreUnavailable
from broker.session.session import Session

logger = logging.getLogger(__name__)

READ_RETRY_S = 1.0

T = TypeVar("T")


class Looks:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._unreadable = False
        """Whether the store could not answer when it was last asked."""
        self._looking: WeakValueDictionary[Session, asyncio.Lock] = WeakValueDictionary()
        """A session has one reader look into the log at a time: it may have 10,000 that replay."""

    async def look(self, session: Session, read: Callable[[], Awaitable[T]]) -> T:
        """As `until_answered`, when no other reader of the session does."""
        async with self._looking.setdefault(session, asyncio.Lock()):
            return await self.until_answered(read)

    async def until_answered(self, read: Callable[[], Awaitable[T]]) -> T:
        """What the store answers, however long it cannot: that is tried again until it can."""
        while True:
            try:
                answer = await read()
            except StoreUnavailable as error:
                if not self._unreadable:
                    logger.warning("the log is not read until this is over: %s", error)
                self._unreadable = True
                await self._clock.sleep(READ_RETRY_S)
            else:
                if self._unreadable:
                    logger.warning("the log is read again")
                self._unreadable = False
                return answer
