"""How long the turns of the event loop are, by the time of the processor: others' use of it does
not count."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable
from functools import wraps
from operator import itemgetter
from pathlib import Path
from types import TracebackType
from typing import ParamSpec, Self

LOOKS = 3
REFERENCE_MS = 45.0

P = ParamSpec("P")


class LongTurn(AssertionError):
    """Something took longer than it may."""


def short(most_ms: float, *took_ms: float) -> None:
    """Raises LongTurn: one of these took more, on a machine that does a piece of work in
    REFERENCE_MS. A slower one has as much more time."""
    longest_ms = max(took_ms)
    if longest_ms >= most_ms and longest_ms >= (may_ms := most_ms * _slowness()):
        raise LongTurn(f"took {longest_ms:.1f} ms, may take {may_ms:.1f}")


def _slowness() -> float:
    """1, or more where the machine is slow just now."""
    took_ms = []
    for _ in range(3):
        began = time.thread_time()
        made = {number: (number, str(number)) for number in range(200_000)}
        sorted(made.values(), key=itemgetter(1))
        took_ms.append((time.thread_time() - began) * 1000)
    return max(1.0, min(took_ms) / REFERENCE_MS)


def again_if_long(test: Callable[P, Awaitable[None]]) -> Callable[P, Awaitable[None]]:
    """A test that fails if a turn is long in each of LOOKS runs: others may have had the machine's
    caches, or the machine, in one. Each run has a directory of its own."""

    @wraps(test)
    async def run(*args: P.args, **kwargs: P.kwargs) -> None:
        directory = kwargs.get("tmp_path")
        for look in range(1, LOOKS + 1):
            if isinstance(directory, Path):
                kwargs["tmp_path"] = directory / str(look)
                (directory / str(look)).mkdir()
            try:
                await test(*args, **kwargs)
                break
            except LongTurn:
                if look == LOOKS:
                    raise

    return run


class LongestTurn:
    """Measures from `async with` to its end. All that one turn does counts together. What is there
    before is no matter of the cycle collector, as in a broker that runs (`server.py`)."""

    def __init__(self) -> None:
        self.ms = 0.0
        self._measuring = False
        self._began = 0.0

    async def __aenter__(self) -> Self:
        gc.collect()
        gc.freeze()
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
        gc.unfreeze()

    def _next(self) -> None:
        """A turn has ended, and the next one begins."""
        now = time.thread_time()
        if self._measuring:
            self.ms = max(self.ms, (now - self._began) * 1000)
            self._began = now
            asyncio.get_running_loop().call_soon(self._next)
