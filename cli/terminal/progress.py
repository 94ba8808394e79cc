"""How far a search has come: shown to a person while nothing is found."""

from __future__ import annotations

import time

from cli.terminal import output

PROGRESS_AFTER_S, PROGRESS_EVERY_S = 0.5, 0.2


class Progress:
    """How far a search has come, on a terminal, while it finds nothing."""

    def __init__(self, total: int, doing: str = "looked at", unit: str = "messages") -> None:
        self._total = total
        self._doing = doing
        self._unit = unit
        self._shown = False
        self._next_s = time.monotonic() + PROGRESS_AFTER_S

    def looked(self, count: int) -> None:
        """So many offsets were looked at."""
        now = time.monotonic()
        if now >= self._next_s:
            self._next_s = now + PROGRESS_EVERY_S
            self._shown = True
            output.progress(f"{self._doing} {count:,} of {self._total:,} {self._unit}")

    def clear(self) -> None:
        """Before something else is written; it comes again only if that takes long, too."""
        if self._shown:
            output.progress("")
            self._shown = False
        self._next_s = time.monotonic() + PROGRESS_AFTER_S
