"""Position: how far one session was offered the messages of the log.

- *Live*: each batch goes to the session as it is routed. All live sessions share one position, that
  of routing, so that a batch costs nothing for the sessions that it does not concern.
- *Behind*, and also while its client is away: the session has a position of its own, from which a
  reader takes it on.
"""

from __future__ import annotations

from typing import ClassVar

from broker.handed_on import AheadOfLog
from broker.message import Offset
from broker.session.served import NOTHING, Served

NOTHING_AHEAD = AheadOfLog()


class Position:
    """Of a session that is behind: every message up to `through` that it gets was offered to it."""

    __slots__ = ("ahead", "through")
    is_live: ClassVar[bool] = False

    def __init__(self, through: Offset, ahead: AheadOfLog = NOTHING_AHEAD) -> None:
        self.through = through
        self.ahead = ahead
        """What was handed on and is not routed; of no matter to a session that is behind."""

    def advance(self, through: Offset) -> None:
        """Everything up to here was offered, or is for somebody else."""
        self.through = through


class LivePosition(Position):
    """Of all live sessions: every batch up to `through` was routed, and `ahead` was not yet."""

    __slots__ = ("_everything", "_state")
    is_live = True

    def __init__(self, through: Offset, ahead: AheadOfLog | None = None) -> None:
        super().__init__(through, AheadOfLog() if ahead is None else ahead)
        self._everything = NOTHING
        self._state = -1
        """The state of `ahead` that this is of."""

    def runs(self, number: int) -> Served:
        """Of what is ahead, the runs up to this number."""
        return NOTHING.with_more(number, self.ahead.parts)

    def everything(self) -> Served:
        """All runs: one object for all sessions that have had them."""
        if self._state != self.ahead.state:
            self._everything, self._state = self.runs(self.ahead.number), self.ahead.state
        return self._everything

    def advance(self, through: Offset) -> None:
        self.through = self.ahead.routed_through = through
        if self.ahead.parts or self.ahead.committed:
            self.ahead.forget_routed()
