"""Tally: what is told about a session and its client, and changes nothing of what it gets.

The log has it as it was when the client last left: a crash forgets what came to it since then.
"""

from __future__ import annotations

from broker.errors import NotAuthorized
from broker.message import NOT_SEEN, WallUs


class Tally:
    __slots__ = ("created_at_us", "last_seen_us", "missed", "redelivered", "user")

    def __init__(
        self,
        created_at_us: int,
        last_seen_us: WallUs = NOT_SEEN,
        redelivered: int = 0,
        missed: int = 0,
        user: str = "",
    ) -> None:
        self.created_at_us = created_at_us
        self.last_seen_us = last_seen_us
        """When its client last left, as the wall clock had it; NOT_SEEN if that is not known."""
        self.redelivered = redelivered
        """Messages that were sent again: with DUP, or to another member of a group."""
        self.missed = missed
        """Offsets that were damaged or removed before the session came to them."""
        self.user = user
        """Whose it is, so that nobody else gets it; empty: it was made while there were no users,
        or by an operator."""

    def belongs_to(self, user: str) -> None:
        """From now on; of no effect if `user` is empty."""
        self.user = user or self.user

    def refuse_another(self, user: str) -> None:
        """Raises NotAuthorized: the session is another user's."""
        if user and self.user and user != self.user:
            raise NotAuthorized("that name is another user's")

    def left(self, at_us: WallUs) -> None:
        self.last_seen_us = at_us

    def sent_again(self, count: int) -> None:
        self.redelivered += count

    def lacks(self, count: int) -> None:
        self.missed += count
