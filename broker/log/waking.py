"""Waking: when the log commits, in the turn of the loop in which something came or in its task.

While the task has nothing to do, what comes in one turn of the loop is tried at its end. What
cannot be done then is up to the task, and so is all that comes while the task works.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from broker.clock import Clock, Timer

CURSOR_COMMIT_DELAY_S = 0.005
"""How long acknowledgements by subscribers alone wait for company before they are committed, where
room for more messages depends on it."""


class Waking:
    def __init__(self, clock: Clock, in_turn: Callable[[], bool]) -> None:
        """`in_turn` commits what came; or it returns False, and the task has to do that."""
        self._clock = clock
        self._in_turn = in_turn
        self._arrived = asyncio.Event()
        self._task_waits = False
        self._scheduled = False
        """Whether `_end_turn` is to be called in this turn of the loop."""
        self._left = False
        """Whether the task is woken for what `in_turn` could not do."""
        self.timer: Timer | None = None
        """Set while something waits for company."""

    def now(self) -> None:
        """Something came that is to be committed."""
        if not self._task_waits:
            self._arrived.set()
        elif not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._end_turn)

    def soon(self) -> None:
        """Something came that waits for company, for CURSOR_COMMIT_DELAY_S."""
        if self.timer is None:
            self.timer = self._clock.call_later(CURSOR_COMMIT_DELAY_S, self.now)

    def cancel_timer(self) -> None:
        """A commit begins, and what waits for company is in it."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    async def wait(self) -> None:
        """For the task: return when there is something to do."""
        self._task_waits = not self._arrived.is_set()
        try:
            await self._arrived.wait()
        finally:
            self._task_waits = False
        if not self._left:
            self._arrived.clear()
        self._left = False

    def _end_turn(self) -> None:
        self._scheduled = False
        if not self._task_waits:
            self._arrived.set()
        elif not self._in_turn():
            self._task_waits, self._left = False, True
            self._arrived.set()
            self._arrived.clear()  # From here on it says that there is more.
