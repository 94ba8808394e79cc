"""Heap: gives memory back to the system that a flood needed and nobody needs any more.

glibc keeps freed memory that lies between what is in use, for good. `malloc_trim` gives it back: in
a thread, as it takes milliseconds, and ever more seldom while there is nothing to give. Other C
libraries (musl, macOS) have no such function.
"""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

SHORTEST_WAIT_S = 10.0
LONGEST_WAIT_S = 160.0
GROWTH_BYTES = 16 << 20
"""While the process has grown by less than this since its start, there is nothing to give back."""
WORTH_BYTES = 1 << 20
"""Less than this was not worth it: the next try waits twice as long."""
STATM = Path("/proc/self/statm")


class Heap:
    """`trim` gives freed memory back, `resident_bytes` is what the process has of the system."""

    def __init__(self, trim: Callable[[], object], resident_bytes: Callable[[], int]) -> None:
        self._trim = trim
        self._resident_bytes = resident_bytes
        self._at_start = resident_bytes()
        self.wait_s = SHORTEST_WAIT_S
        """When to call `give_back` again."""

    def give_back(self) -> None:
        """Trim the heap if the process has grown."""
        before = self._resident_bytes()
        self.wait_s = min(2 * self.wait_s, LONGEST_WAIT_S)
        if before < self._at_start + GROWTH_BYTES:
            self.wait_s = SHORTEST_WAIT_S
            return
        self._trim()
        if before - self._resident_bytes() >= WORTH_BYTES:
            self.wait_s = SHORTEST_WAIT_S


@contextmanager
def giving_back() -> Iterator[None]:
    """Give memory back now and then, where the C library can."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is None or not STATM.exists():
        yield
        return
    heap = Heap(lambda: trim(0), resident_bytes)
    ended = threading.Event()

    def work() -> None:
        # The signals that end the broker are for the thread that listens to them.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while not ended.wait(heap.wait_s):
            heap.give_back()

    threading.Thread(target=work, name="heap", daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def resident_bytes() -> int:
    """What this process holds in RAM."""
    return int(STATM.read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
