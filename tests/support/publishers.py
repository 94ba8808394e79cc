"""A publisher of the log that notes how it is held."""

from __future__ import annotations


class Publisher:
    def __init__(self) -> None:
        self.calls: list[str] = []

    def pause_reading(self, reason: str) -> None:
        self.calls.append("hold")

    def resume_reading(self, reason: str) -> None:
        self.calls.append("release")

    def failed(self, error: Exception) -> None:
        self.calls.append("failed")
