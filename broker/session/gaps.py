"""Gaps: which missing offsets a session was told of, and which were counted for it.

The log does not keep this: it is of one run of the broker, as its counters are. What was told and
not acknowledged is found again by the next run (`registry/telling_again.py`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from broker.message import Offset

TOLD_MAX = 64
"""From this many on, those are forgotten whose message is acknowledged."""


class Gaps:
    __slots__ = ("counted_through", "heard", "restored_at", "told")

    def __init__(self) -> None:
        self.heard = True
        """Whether the client's protocol can tell it."""
        self.restored_at = Offset(0)
        """The cursor that the log had: the client may not know what is missing above it."""
        self.counted_through = Offset(0)
        """What is missing up to here was counted. The cursor may stay before it: then the next
        connection reads it again."""
        self.told: dict[Offset, tuple[range, ...]] = {}
        """Missing offsets by the message that tells of them. When it is sent again, so are they."""

    def __bool__(self) -> bool:
        """Whether there is anything to keep."""
        return self.counted_through > 0 or bool(self.told)

    def counted(self, missing: Sequence[range]) -> None:
        if missing:
            self.counted_through = max(self.counted_through, Offset(missing[-1].stop - 1))

    def forget(self, in_flight: Collection[Offset]) -> None:
        """Only these messages may be sent again."""
        self.told = {offset: gaps for offset, gaps in self.told.items() if offset in in_flight}
