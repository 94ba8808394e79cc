"""Waking: tells whoever was offered something, as many in a turn of the loop as it has time for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from itertools import islice

from broker.session.session import Session

AT_ONCE_MAX = 500
"""Sessions that are woken in one turn of the loop: about 10 ms."""


class Waking:
    def __init__(self, wake: Callable[[Session], None]) -> None:
        self._wake = wake
        self._later: dict[Session, None] = {}

    @property
    def unfinished(self) -> bool:
        """Whether some are to be woken in the turns to come."""
        return bool(self._later)

    def wake(self, sessions: Sequence[Session]) -> None:
        """Wake the first of these at once, and the others in the next turns."""
        for session in sessions[:AT_ONCE_MAX]:
            self._wake(session)
        if len(sessions) > AT_ONCE_MAX:
            if not self._later:
                asyncio.get_running_loop().call_soon(self._go_on)
            self._later |= dict.fromkeys(sessions[AT_ONCE_MAX:])

    def _go_on(self) -> None:
        part = [*islice(self._later, AT_ONCE_MAX)]
        for session in part:
            del self._later[session]
        if self._later:
            asyncio.get_running_loop().call_soon(self._go_on)
        for session in part:
            self._wake(session)
