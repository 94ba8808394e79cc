"""StopWatch: how long a commit took, and how much of that its thread could have run and had no CPU,
where the system tells (Linux).

Others on the machine cause the second, and not the disk. Tried on two cores that others used up: of
72 commits that took 5 ms and more 69 had waited for a CPU, up to 48 ms, and for the disk 0.4 ms.
"""

from __future__ import annotations

import os
from threading import get_ident
from time import perf_counter

QUICK_S = 0.0005
"""What took less is quick on any disk: nobody asks why it did not take less still."""
TIMES = "/proc/thread-self/schedstat"
"""Of the thread that opens it: nanoseconds on a CPU, nanoseconds that it waited for one; more."""
_TIMES_BYTES = 64


class StopWatch:
    """One measurement at a time, each in any thread."""

    def __init__(self, path: str = TIMES) -> None:
        self._path = path
        self._files: dict[int, int | None] = {}
        """By thread; None: the system does not tell."""
        self._exact = False
        self._began_s = 0.0
        self._before = b""

    def begin(self, *, exact: bool) -> None:
        """`exact`: `end` is to tell how late it was."""
        self._exact = exact
        self._began_s = perf_counter()
        if exact:
            self._before = self._read()

    def end(self) -> tuple[float, float]:
        """Seconds since `begin`, and for how many of them this thread waited for a CPU: 0, if it is
        not to be exact, or was quick."""
        took_s = perf_counter() - self._began_s
        if not self._exact or took_s < QUICK_S:
            return took_s, 0.0
        late_s = _late_s(self._read()) - _late_s(self._before)
        return took_s, max(0.0, min(late_s, took_s))

    def _read(self) -> bytes:
        """What the system tells of this thread so far. Nothing, where it does not, or no longer
        does: that is no failure of the disk."""
        thread = get_ident()
        try:
            if thread not in self._files:
                self._files[thread] = None
                self._files[thread] = os.open(self._path, os.O_RDONLY)
            file = self._files[thread]
            return b"" if file is None else os.pread(file, _TIMES_BYTES, 0)
        except OSError:
            return b""

    def close(self) -> None:
        for file in self._files.values():
            if file is not None:
                os.close(file)
        self._files.clear()


def _late_s(times: bytes) -> float:
    """How long the thread waited for a CPU, of TIMES; 0 if they do not tell."""
    try:
        return int(times.split()[1]) / 1e9
    except (IndexError, ValueError):
        return 0.0
