"""Position: how far one session was offered the messages of the log.

- *Live*: each batch goes to the session as it is routed. All live sessions share one position, that
  of routing, so that a batch costs nothing for the sessions that it does not concern.
- *Behind*, and also while its client is away: the session has a position of its own, from which a
  reader takes it on.
"""

from __future__ import annotations

from typing import ClassVar

from broker.message import Offset


class Position:
    """Of a session that is behind: every message up to `through` that it gets was offered to it."""

    __slots__ = ("through",)
    is_live: ClassVar[bool] = False

    def __init__(self, through: Offset) -> None:
        self.through = through

    def advance(self, through: Offset) -> None:
        """Everything up to here was offered, or is for somebody else."""
        self.through = through


class LivePosition(Position):
    """Of all live sessions: every batch up to `through` was routed."""

    __slots__ = ()
    is_live = True
