"""Offsets: which one the next message gets.

The one writer counts them. SQLite notes in `sqlite_sequence` which may have been given out, and
would write that page in every commit, beside the message's own. So they are reserved in advance,
up to a multiple of RESERVED_AT_ONCE. Until a clean stop gives the rest back, no program that asks
SQLite for the next offset gets one that is ours: an older broker, or `sqlite3` beside this one.
"""

from __future__ import annotations

import sqlite3

from broker.message import Offset
from broker.store.sqlite.rows import BLOCK_SHIFT

RESERVED_AT_ONCE = 4 << BLOCK_SHIFT
"""Whole blocks: what another program inserts then begins a block that we have nothing in yet."""


class OffsetsTaken(Exception):
    """Another program has inserted messages: the offsets are not those that were expected."""


class Offsets:
    """`take` and `give_back` write in the transaction that is open."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.next: Offset | None = None
        """What the next message gets; None: ask the database."""
        self.reserved = Offset(0)
        """Up to here, as `sqlite_sequence` has it."""

    def take(self, count: int) -> Offset:
        """The first of so many. Raises OffsetsTaken."""
        if self.next is None:
            self.look_up()
        assert self.next is not None
        first = self.next
        self.next = Offset(first + count)
        if self.next > self.reserved + 1:
            self._reserve(((self.next - 1) // RESERVED_AT_ONCE + 1) * RESERVED_AT_ONCE)
        return first

    def give_back(self) -> None:
        """At a clean stop: what was reserved and is not used."""
        if self.next is not None:
            self._reserve(self.next)

    def look_up(self) -> None:
        """Ask the database which is next, and what is reserved by whomever."""
        self.reserved, newest = self._connection.execute(
            "SELECT (SELECT ifnull(max(seq), 0) FROM sqlite_sequence WHERE name = 'messages'),"
            " (SELECT ifnull(max(offset), 0) FROM messages)"
        ).fetchone()
        self.next = Offset(max(self.reserved, newest) + 1)

    def _reserve(self, before: int) -> None:
        changed = self._connection.execute(
            "UPDATE sqlite_sequence SET seq = ? WHERE name = 'messages' AND seq = ?",
            (before - 1, self.reserved),
        ).rowcount
        if not changed and not self.reserved:
            changed = self._connection.execute(
                "INSERT INTO sqlite_sequence SELECT 'messages', ?"
                " WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'messages')",
                (before - 1,),
            ).rowcount
        if not changed:
            raise OffsetsTaken
        self.reserved = Offset(before - 1)
