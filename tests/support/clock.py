"""A clock that stands still until a test moves it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from broker.clock import US, Instant, Timer
from broker.message import Monotonic, WallUs


class FakeTimer:
    __slots__ = ("_set", "at", "callback")

    def __init__(self, at: float, callback: Callable[[], object], set_: list[FakeTimer]) -> None:
        self.at = at
        self.callback = callback
        self._set = set_
        set_.append(self)

    def cancel(self) -> None:
        if self in self._set:
            self._set.remove(self)


class FakeClock:
    """Timers fire inside `advance`, each at its own time. Both clocks begin far from each other, so
    that a time of one taken for a time of the other shows."""

    def __init__(self, *, wall_s: int = 1_000_000_000, monotonic_s: float = 5.0) -> None:
        self._monotonic = monotonic_s
        self._suspended_s = 0.0
        self.set_wall(wall_s)
        self._timers: list[FakeTimer] = []

    def now(self) -> Instant:
        return Instant(self.monotonic(), self.wall_us())

    def monotonic(self) -> Monotonic:
        return Monotonic(self._monotonic)

    def wall_us(self) -> WallUs:
        return WallUs(self._wall_at_zero_us + round(self._monotonic * US))

    def elapsed_us(self) -> int:
        return round((self._monotonic + self._suspended_s) * US)

    def call_later(self, delay_s: float, callback: Callable[[], object]) -> Timer:
        if delay_s <= 0:
            return asyncio.get_running_loop().call_soon(callback)
        return FakeTimer(self._monotonic + delay_s, callback, self._timers)

    async def sleep(self, seconds: float) -> None:
        over = asyncio.Event()
        self.call_later(seconds, over.set)
        await over.wait()

    def advance(self, seconds: float) -> None:
        """Let so much time pass on both clocks."""
        end = self._monotonic + seconds
        while due := [timer for timer in self._timers if timer.at <= end]:
            first = min(due, key=lambda timer: timer.at)
            first.cancel()
            self._monotonic = first.at
            first.callback()
        self._monotonic = end

    def set_wall(self, wall_s: int) -> None:
        """Set the wall clock, as somebody may at any time."""
        self._wall_at_zero_us = wall_s * US - round(self._monotonic * US)

    def suspend(self, seconds: float) -> None:
        """Let the machine sleep so long: only the monotonic clock stands still."""
        self._suspended_s += seconds
        self._wall_at_zero_us += round(seconds * US)

    @property
    def timers(self) -> list[float]:
        """Of those that are set, in how many seconds each fires."""
        return sorted(timer.at - self._monotonic for timer in self._timers)
