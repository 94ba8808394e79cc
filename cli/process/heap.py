"""Heap: gives memory back to the system that a flood needed and nobody needs any more, and not what
each batch needs again.

By itself glibc gives back what is free at the end of the heap as soon as that is 128 KiB. Then the
system has to clear each page that it hands out again: with 100 subscribers 40 pages for 1,000
deliveries, and 15 % of the CPU. So KEPT_BYTES of it are kept.

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
KEPT_BYTES = 8 << 20
"""Freed memory at the end of the heap that stays there. What is in use does not count."""
APART_BYTES = 1 << 20
"""What is larger is not taken from the heap, and goes back to the system when it is freed."""
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""What `mallopt` calls the two. (malloc.h)"""
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
    library = ctypes.CDLL(None)
    trim = getattr(library, "malloc_trim", None)
    if trim is None or not STATM.exists():
        yield
        return
    library.mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
    library.mallopt(M_MMAP_THRESHOLD, APART_BYTES)
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
