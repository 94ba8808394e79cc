"""Cursor sync: when cursors that were committed without an fsync have to be fsynced. (P4)"""

from __future__ import annotations

from collections.abc import Callable

from broker.clock import Clock, Timer

CURSOR_SYNC_S = 0.9
"""How long what was committed without an fsync may wait for one: with the delay before the commit
and the fsync itself, a power cut takes back no more than a second of acknowledgements. (P4)"""


class CursorSync:
    def __init__(self, clock: Clock, wake: Callable[[], None]) -> None:
        """`wake` is called when it is due."""
        self._clock = clock
        self._wake = wake
        self.timer: Timer | None = None
        """Set while state is committed that was not fsynced."""
        self.due = False

    def note(self, *, durable: bool, moved: bool) -> None:
        """A commit was fsynced, or moved cursors and was not: those have to be, in their turn."""
        if durable:
            self.due = False
            if self.timer is not None:
                self.timer.cancel()
                self.timer = None
        elif moved and self.timer is None:
            self.timer = self._clock.call_later(CURSOR_SYNC_S, self._is_due)

    def _is_due(self) -> None:
        self.due = True
        self._wake()
