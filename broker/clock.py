"""Clock: what time it is, on both clocks, and timers. Beside the rim, only this reads a clock.

- Rules get the time as an argument: `deadline()` is when they want to be called next, `expire(now)`
  does what is due. `Alarm` keeps one timer for all of them.
- Deadlines are `Monotonic`: they do not move when somebody sets the wall clock. What has to outlive
  the process is on the log's own time (`log/log_time.py`). The wall clock is for people.
- Whoever sets timers or reads the time is given a `Clock`, so that another can stand in for the
  system's: a test's stands still until the test moves it.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from broker.message import Monotonic, WallUs

logger = logging.getLogger(__name__)

US = 1_000_000
FAILED_RETRY_S = 1.0
"""Seconds before a rule that failed is called again, since its work may still be due."""
NEVER = Monotonic(math.inf)
_ELAPSED_CLOCK: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""A clock that runs while the machine sleeps: only Linux has CLOCK_BOOTTIME, and macOS's monotonic
clock does so."""


@dataclass(slots=True, frozen=True)
class Instant:
    """One moment on both clocks."""

    monotonic: Monotonic
    wall_us: WallUs

    def after(self, seconds: float) -> Monotonic:
        return Monotonic(self.monotonic + seconds)


class Timer(Protocol):
    def cancel(self) -> None: ...


class Clock(Protocol):
    def now(self) -> Instant: ...

    def monotonic(self) -> Monotonic: ...

    def wall_us(self) -> WallUs: ...

    def elapsed_us(self) -> int:
        """Microseconds of a clock that nobody can set, and that runs while the machine is suspended
        too, where the system has one. Its zero means nothing."""
        ...

    def call_later(self, delay_s: float, callback: Callable[[], object]) -> Timer:
        """Call once, in the loop, after `delay_s` (in its next turn if that is not above 0)."""
        ...

    async def sleep(self, seconds: float) -> None: ...


class SystemClock:
    """This machine's clocks, and the timers of the running event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()

    def now(self) -> Instant:
        return Instant(self.monotonic(), self.wall_us())

    def monotonic(self) -> Monotonic:
        """The loop's: its timers are due by it. It stands still while the machine is suspended."""
        return Monotonic(self._loop.time())

    def wall_us(self) -> WallUs:
        return WallUs(time.time_ns() // 1000)

    def elapsed_us(self) -> int:
        return time.clock_gettime_ns(_ELAPSED_CLOCK) // 1000

    def call_later(self, delay_s: float, callback: Callable[[], object]) -> Timer:
        return self._loop.call_later(delay_s, callback)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class Timed(Protocol):
    """A rule that something is to be done at a certain time."""

    def deadline(self) -> Monotonic | None:
        """When to call `expire`, or None. It may have passed: then there is more to do."""
        ...

    def expire(self, now: Instant) -> None:
        """Do what is due, or a part of it that does not hold up everybody else."""
        ...


class Alarm:
    """One timer for all rules that have a deadline."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._rules: tuple[Timed, ...] = ()
        self._timer: Timer | None = None
        self._set_for = NEVER
        self._rings = asyncio.Event()

    def watch(self, *rules: Timed) -> None:
        """Call `expire` of each of these from now on."""
        self._rules += rules
        self.deadline_moved()

    def deadline_moved(self) -> None:
        """A deadline may be earlier than before. (Nobody need tell of a later one.)"""
        deadlines = [at for rule in self._rules if (at := rule.deadline()) is not None]
        soonest = min(deadlines, default=NEVER)
        if soonest < self._set_for:
            self._cancel_timer()
            self._set_for = soonest
            delay_s = soonest - self._clock.monotonic()
            self._timer = self._clock.call_later(delay_s, self._rings.set)

    async def expire_forever(self) -> None:
        """Call `expire` of all when the first of their deadlines has come; then the next."""
        while True:
            await self._rings.wait()
            self._rings.clear()
            self._cancel_timer()
            now = self._clock.now()
            failed = False
            for rule in self._rules:
                try:
                    rule.expire(now)
                except Exception as error:
                    logger.critical("what was due is not all done", exc_info=error)
                    failed = True
            if failed:
                await self._clock.sleep(FAILED_RETRY_S)
            self.deadline_moved()

    def stop(self) -> None:
        """Watch nothing any more."""
        self._rules = ()
        self._cancel_timer()

    def _cancel_timer(self) -> None:
        self._set_for = NEVER
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
