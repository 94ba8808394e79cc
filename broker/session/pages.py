"""Pages: which of them changed, of those in which the log keeps a window with much in flight.

A page has the exchanges of 32 Packet Identifiers, so a commit writes only what changed. Nobody asks
for a window with little in flight: nothing is noted then.
"""

from __future__ import annotations

from collections.abc import Iterable

PAGE_SHIFT = 5
"""A page has 32 Packet Identifiers."""


class ChangedPages:
    __slots__ = ("pages",)

    def __init__(self) -> None:
        self.pages: set[int] | None = None
        """None: nobody asks. Who notes much looks at this first."""

    def watch(self) -> None:
        """Note from now on which pages change."""
        self.pages = set()

    def forget(self) -> None:
        """Nobody asks any more."""
        self.pages = None

    def add(self, pages: Iterable[int]) -> None:
        """Count these as changed, too."""
        self.pages = (self.pages or set()).union(pages)

    def note(self, packet_ids: Iterable[int]) -> None:
        """What is known under these Packet Identifiers has changed."""
        if self.pages is not None:
            self.pages.update([packet_id >> PAGE_SHIFT for packet_id in packet_ids])

    def take(self) -> set[int]:
        """The pages that changed since the last call."""
        changed, self.pages = self.pages or set(), set()
        return changed
