"""Publishers: who waits for the log, and is held while too much does."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

REASON = "log"


class Publisher(Protocol):
    """Waits for the log to acknowledge what it sent, and can be kept from sending more."""

    def pause_reading(self, reason: str) -> None:
        """Take nothing more from it until `resume_reading` was called for every reason."""
        ...

    def resume_reading(self, reason: str) -> None: ...

    def failed(self, error: Exception) -> None:
        """One of these raised this. Raises nothing."""
        ...


class HeldPublishers:
    def __init__(self) -> None:
        self.held: dict[Publisher, None] = {}

    def hold(self, publishers: Iterable[Publisher]) -> None:
        """Hold those of these that are not held already."""
        for publisher in publishers:
            if publisher not in self.held:
                self.held[publisher] = None
                try:
                    publisher.pause_reading(REASON)
                except Exception as error:
                    publisher.failed(error)

    def release(self) -> None:
        """All of them."""
        released, self.held = self.held, {}
        for publisher in released:
            try:
                publisher.resume_reading(REASON)
            except Exception as error:
                publisher.failed(error)
