"""Acknowledgements: the writes that the callbacks of a commit put off, one for each connection.

However many acknowledgements become due for a connection in one commit, or in one turn of the loop,
they leave in one write.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Acknowledgements:
    def __init__(self) -> None:
        self.held = False
        """Whether a commit calls back: at its end it lets them `leave`."""
        self.writes: list[Callable[[], None]] = []
        """Those that are put off."""

    def put_off(self, write: Callable[[], None]) -> None:
        """Call this, which raises nothing, at the end of the commit, or of this turn of the loop.

        Once for each call of this, and in their order."""
        if not (self.writes or self.held):
            asyncio.get_running_loop().call_soon(self.leave)
        self.writes.append(write)

    def leave(self) -> None:
        """Call them now."""
        writes, self.writes = self.writes, []
        for write in writes:
            write()
