"""Ctrl-C as a fact to look at between two steps, not an exception in the middle of one."""

from __future__ import annotations

import signal
import socket
from types import FrameType, TracebackType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""The last one when the terminal is closed."""


class Interrupt:
    """While entered, SIGNALS set `requested` and make `fileno()` readable. (nohup ignores SIGHUP:
    it stays so.)

    So a message is either written and acknowledged or neither. A second signal is impatience (the
    reader of our output may be stuck) and raises KeyboardInterrupt wherever we are.
    """

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> Interrupt:
        self._readable, self._writable = socket.socketpair()
        self._readable.setblocking(False)
        self._writable.setblocking(False)
        self._wakeup_fd = signal.set_wakeup_fd(self._writable.fileno(), warn_on_full_buffer=False)
        self._handlers = {
            number: signal.signal(number, self._on_signal)
            for number in SIGNALS
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN
        }
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup_fd)
        self._readable.close()
        self._writable.close()

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True

    def fileno(self) -> int:
        return self._readable.fileno()

    def check(self) -> None:
        """Raises KeyboardInterrupt if one was requested: called where stopping is safe."""
        if self.requested:
            raise KeyboardInterrupt
