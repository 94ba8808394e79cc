"""Waking: tells whoever was offered something, as many in a turn of the loop as it has time for.

Who is woken sends what it has: one may have 10,000 messages, and 20,000 may have one. Those with
little do not wait for those with much.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from broker.counters import Counters
from broker.session.session import Session

AT_ONCE_MAX = 5000
"""Messages that are sent in one turn of the loop: about 10 ms. 1 KiB counts as one more, ..."""
WAKE_MESSAGES = 10
"""... and to wake a session as so many."""
LITTLE_BYTES = 64 * 1024
"""Who has no more than this may be woken until it is twice AT_ONCE_MAX."""


class Waking:
    def __init__(self, wake: Callable[[Session], None], counters: Counters) -> None:
        """`counters` tell how much was sent."""
        self._wake = wake
        self._counters = counters
        self.later: dict[Session, None] = {}
        """Those that are woken in the turns to come."""
        self._sent = 0
        """In this turn, as AT_ONCE_MAX counts."""

    def wake(self, sessions: Sequence[Session]) -> None:
        """Wake these: as many as there is time for at once, and the others in the next turns."""
        if len(sessions) == 1 and not (
            sessions[0].outbox.size > LITTLE_BYTES or sessions[0].supply.aside
        ):
            self._wake(sessions[0])  # As it is most of the time.
            return
        counters = self._counters
        for session in sessions:
            if self._sent >= AT_ONCE_MAX and (
                self._sent >= 2 * AT_ONCE_MAX or session.outbox.size > LITTLE_BYTES
            ):
                self.later[session] = None
                continue
            if not self._sent:
                asyncio.get_running_loop().call_soon(self._go_on)
            messages, size = counters.messages_out, counters.payload_bytes_out
            self._wake(session)
            messages, size = counters.messages_out - messages, counters.payload_bytes_out - size
            self._sent += WAKE_MESSAGES + messages + (size >> 10)

    def _go_on(self) -> None:
        """A new turn of the loop."""
        self._sent = 0
        if self.later:
            later, self.later = self.later, {}
            self.wake([*later])
