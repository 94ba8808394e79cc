"""How long the turns of the event loop are, by the time of the processor: others' use of it does
not count."""

from __future__ import annotations

import asyncio
import time
from types import TracebackType
from typing import Self


class LongestTurn:
    """Measures from `async with` to its end. All that one turn does counts together."""

    def __init__(self) -> None:
        self.ms = 0.0
        self._measuring = False
        self._began = 0.0

    async def __aenter__(self) -> Self:
        await asyncio.sleep(0)
        self._measuring = True
        self._began = time.thread_time()
        asyncio.get_running_loop().call_soon(self._next)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await asyncio.sleep(0)
        self._measuring = False

    def _next(self) -> None:
        """A turn has ended, and the next one begins."""
        now = time.thread_time()
        if self._measuring:
            self.ms = max(self.ms, (now - self._began) * 1000)
            self._began = now
            asyncio.get_running_loop().call_soon(self._next)
