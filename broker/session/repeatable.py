"""Repeatable: how many acknowledged messages a crash of the broker could send again. (P4)

Those sent and not acknowledged, and those acknowledged since the newest commit began.
"""

from __future__ import annotations


class Repeatable:
    """Of one session."""

    def __init__(self) -> None:
        self.sent = 0
        """Exchanges that began."""
        self.acknowledged = 0
        """Exchanges that are over."""
        self.committing = True
        """Whether the log takes the session's state; not while the disk is full."""
        self.acknowledged_committed = 0
        """Of these, what the log knows; 0 after a start, as `sent` counts from then."""
        self._acknowledged_committing = 0

    @property
    def uncommitted(self) -> int:
        """Exchanges that began and are not known by the log to be over."""
        return self.sent - self.acknowledged_committed

    def commit_begins(self) -> None:
        """The acknowledgements so far are in the commit that begins."""
        self._acknowledged_committing = self.acknowledged

    def committed(self) -> None:
        """A crash of the broker repeats nothing that was acknowledged when the commit began."""
        self.committing = True
        self.acknowledged_committed = self._acknowledged_committing

    def not_committed(self) -> None:
        """The disk is full: nothing waits for it."""
        self.committing = False
