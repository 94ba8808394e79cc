"""Ending: the signals that ask the broker to stop, and the end of a process that cannot stop.

The event loop, or a thread of the store, may hang in a call to a disk that does not answer: no
handler of a signal runs then. So a thread hears the signals, and when the time for a stop is up it
is `os._exit` that ends the process. No promise depends on what is left undone.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
EXIT_NO_DISK = 74
"""The exit code of a process that ended without its disk, as after a StoreError."""

logger = logging.getLogger(__name__)


class Ending:
    """Hears SIGTERM and SIGINT while it is `listening`. The second one ends the process at once."""

    def __init__(self) -> None:
        self._requested: Callable[[], None] | None = None
        self._asked = threading.Event()
        self._timer: threading.Timer | None = None
        self._over = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Enter it in the main thread, before other threads start: these then get no signals."""
        handlers = {number: signal.signal(number, self._handle) for number in STOP_SIGNALS}
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        thread = threading.Thread(target=self._listen, name="signals", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._over = True
            if self._timer is not None:
                self._timer.cancel()
            assert thread.ident is not None
            signal.pthread_kill(thread.ident, signal.SIGTERM)
            thread.join()
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def when_asked(self, requested: Callable[[], None]) -> None:
        """Call `requested`, in any thread, at the first signal; at once if one came already."""
        self._requested = requested
        if self._asked.is_set():
            requested()

    def expect_end(self, within_s: float) -> None:
        """End the process if it is still `listening` after this many seconds."""
        if self._timer is None:
            said = f"the broker ends without its disk, which did not answer for {within_s:g} s"
            self._timer = threading.Timer(within_s, end_now, [said, EXIT_NO_DISK])
            self._timer.daemon = True
            self._timer.start()

    def _listen(self) -> None:
        while True:
            number = signal.sigwait(STOP_SIGNALS)
            if self._over:
                return
            self._hear(number)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        """Python calls this in the main thread when a thread older than ours got the signal."""
        self._hear(number)

    def _hear(self, number: int) -> None:
        if self._asked.is_set():
            end_now("told twice to stop: the broker ends at once", 128 + number)
        self._asked.set()
        if self._requested is not None:
            self._requested()


def end_now(reason: str, code: int) -> None:
    """End the process, whatever its threads are doing."""
    logger.critical(reason)
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
