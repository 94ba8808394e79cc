"""Hashing: password hashes are made in threads, so many at a time, and the rest waits in a queue.

The queue is bounded. Addresses have their turns in it, so one that sends a thousand logins does not
hold up the one login of another; and no address has more than half of it. Who has left by its turn
costs no hash. The threads have a lower priority than the loop: messages go on.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

from broker.errors import LoginRefused, TooManyLogins

WAITING_MAX = 5000
WAITING_BYTES_MAX = 64 * 1024 * 1024
"""Of what those who wait keep in memory, their wills above all."""
NICENESS = 5
"""Beside that of the broker."""
THREADS_MAX = 4

STOPS = "the broker stops"

T = TypeVar("T")
_Waiter = tuple[asyncio.Future[None], int]


class Hashing:
    def __init__(self, threads: int | None = None) -> None:
        self._free = threads or min(THREADS_MAX, os.cpu_count() or 1)
        self._pool = ThreadPoolExecutor(self._free, "password", initializer=_give_way)
        self._waiting: dict[str, deque[_Waiter]] = {}
        """By address, whose turn comes first first."""
        self.waiting_count = 0
        self._waiting_bytes = 0
        self._stopped = False

    async def run(
        self,
        address: str,
        size: int,
        call: Callable[[], T],
        has_left: Callable[[], bool] = lambda: False,
    ) -> T:
        """What `call` returns, in a thread. `size`: bytes that are kept meanwhile. `has_left`:
        whether nobody needs it any more. Raises TooManyLogins, LoginRefused."""
        if self._stopped:
            raise TooManyLogins(STOPS)
        if self._free:
            self._free -= 1
        else:
            await self._turn(address, size)
        try:
            if has_left():
                raise LoginRefused("the client has left")
            return await asyncio.get_running_loop().run_in_executor(self._pool, call)
        finally:
            self._next()

    async def _turn(self, address: str, size: int) -> None:
        here = self._waiting.get(address, ())
        if (
            self.waiting_count >= WAITING_MAX
            or len(here) >= WAITING_MAX // 2
            or self._waiting_bytes + size > WAITING_BYTES_MAX
        ):
            raise TooManyLogins("too many clients are logging in, try again later")
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(address, deque()).append((turn, size))
        self.waiting_count += 1
        self._waiting_bytes += size
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._next()
            raise

    def _next(self) -> None:
        """A thread is free: the next address has its turn."""
        while self._waiting:
            address, waiters = next(iter(self._waiting.items()))
            del self._waiting[address]
            turn, size = waiters.popleft()
            self.waiting_count -= 1
            self._waiting_bytes -= size
            if waiters:
                self._waiting[address] = waiters
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1

    def stop(self) -> None:
        """Whoever waits is refused. A hash that is being made is of no use any more."""
        self._stopped = True
        while self._waiting:
            _, waiters = self._waiting.popitem()
            for turn, _ in waiters:
                if not turn.done():
                    turn.set_exception(TooManyLogins(STOPS))
        self.waiting_count = self._waiting_bytes = 0
        self._pool.shutdown(wait=False, cancel_futures=True)


def _give_way() -> None:
    """Lower the priority of this thread alone, where the system knows one of threads."""
    if hasattr(os, "setpriority") and os.uname().sysname == "Linux":
        with suppress(OSError):
            thread = threading.get_native_id()
            niceness = os.getpriority(os.PRIO_PROCESS, thread) + NICENESS
            os.setpriority(os.PRIO_PROCESS, thread, niceness)
