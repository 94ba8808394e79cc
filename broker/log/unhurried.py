"""Unhurried: cursors that moved wait for company, so that they rarely make a commit of their own.

From RIDE_S after the first of them on they go with the next commit that is fsynced, so a cursor is
not written again for each message. If none comes they are committed and fsynced by themselves,
after CURSOR_WAIT_S: a power cut takes back no more than a second of acknowledgements. (P4)
"""

from __future__ import annotations

from collections.abc import Callable

from broker.clock import Clock, Timer
from broker.log.batch import Append, Batch, OnCommitted, OnFailed, StateSource

RIDE_S = 0.1
CURSOR_WAIT_S = 0.8


class Unhurried:
    def __init__(self, clock: Clock, wake: Callable[[], None]) -> None:
        """`wake` is called when they can wait no longer."""
        self._clock = clock
        self._wake = wake
        self._waiting: dict[StateSource, tuple[OnCommitted, OnFailed]] = {}
        self._timer: Timer | None = None
        self.ride = False
        """Whether they go with the next commit that is fsynced."""
        self.due = False
        """Whether they go with the next commit, which then is fsynced."""

    def add(self, source: StateSource, on_committed: OnCommitted, failed: OnFailed) -> None:
        """The state of this one has changed. Of several calls for it the last one hears of that."""
        if not self._waiting:
            self._timer = self._clock.call_later(RIDE_S, self._may_ride)
        self._waiting[source] = on_committed, failed

    def hasten(self) -> None:
        """Let them wait no longer."""
        if self._waiting:
            self._be_due()

    def take(self, batch: Batch) -> None:
        """Put them into this batch."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self.ride, self.due = None, False, False
        waiting, self._waiting = self._waiting, {}
        for source, (on_committed, failed) in waiting.items():
            batch.sources.setdefault(source, False)
            batch.appends.append(
                Append((), (), 0, False, False, on_committed, failed, None, source, source)
            )

    def _may_ride(self) -> None:
        self.ride = True
        self._timer = self._clock.call_later(CURSOR_WAIT_S - RIDE_S, self._be_due)

    def _be_due(self) -> None:
        self.ride = self.due = True
        self._wake()
