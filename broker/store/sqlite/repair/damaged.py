"""Damage: one block read row by row, and what is known to be damaged, told once.

A damaged page misleads SQLite: a search goes astray by a wrong rowid, a scan ends at a row that
claims to be far away, a pointer leads out of the file. So the rows are taken in the order in which
they lie, from the block before on, then those that are still missing one by one. A row counts if
its checksum is right. The work is bounded: about three blocks of rows and one of look-ups.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from broker.errors import StoreCorrupt
from broker.message import Message, Offset
from broker.store import Read
from broker.store.removing import as_ranges
from broker.store.sqlite.accounts import Accounts, Unsound, bounds
from broker.store.sqlite.errors import is_damage
from broker.store.sqlite.rows import BLOCK_SHIFT, COLUMNS

logger = logging.getLogger(__name__)

BLOCK = 1 << BLOCK_SHIFT
_FROM = f"SELECT {COLUMNS} FROM messages WHERE offset >= ? LIMIT {3 * BLOCK}"
_AT = f"SELECT {COLUMNS} FROM messages WHERE offset = ?"


class Damage:
    """What was found damaged since the store was opened: blocks, and how many offsets."""

    def __init__(self) -> None:
        self._blocks: dict[int, int] = {}
        self.confirmed: set[int] = set()
        """Blocks that the disk reads, but with the wrong content."""
        self.topics: set[int] | None = None
        """Topics whose name is damaged; None: nobody has looked."""

    @property
    def offsets(self) -> int:
        """How many offsets are known to be unreadable."""
        return sum([*self._blocks.values()])

    def forget(self, blocks: set[int]) -> None:
        """Take these blocks off the list: the disk could not read them; they are not damaged."""
        for block in blocks:
            self._blocks.pop(block, None)

    def found(self, block: int, damaged: Sequence[range]) -> None:
        """Note the unreadable offsets of a block. Logged once for each block, and again when more
        are found."""
        count = sum(map(len, damaged))
        if count <= self._blocks.get(block, 0):
            return
        self._blocks[block] = count
        named = ", ".join(f"{part.start}-{part.stop - 1}" for part in damaged)
        logger.error("the log is damaged: it cannot be read at the offsets %s", named)


class DamagedBlock:
    """One block with damage in it."""

    def __init__(
        self,
        number: int,
        connection: sqlite3.Connection,
        accounts: Accounts,
        decode: Callable[[list[Any]], list[Message]],
        newest: int | None = None,
    ) -> None:
        """`decode` makes messages of rows, or raises StoreCorrupt. `newest`: of the last block, the
        offset above which there is nothing to look for."""
        self.number = number
        self._first, self.last = bounds(number)
        if newest is not None:
            self.last = min(self.last, newest)
        self._connection = connection
        self._accounts = accounts
        self._decode = decode
        self._sound: dict[int, tuple[str, int]] = {}
        """Topic and size of each readable message, by offset."""
        self._broken: set[int] = set()
        """Offsets of damaged rows."""
        self.damaged: list[range] = []
        """What `look` found."""

    def look(self, end: int) -> list[range]:
        """The offsets up to `end` of the block that cannot be read."""
        for message in self._messages():
            self._sound[message.offset] = message.topic, message.size
        last = min(end, self.last)
        missing = self._accounts.missing(self._first, last, self._sound)
        broken = {offset for offset in self._broken if offset <= last} - self._sound.keys()
        self.damaged = as_ranges(sorted(broken | set(missing)))
        return self.damaged

    def read(
        self,
        start: int,
        end: int,
        match: Callable[[str], bool] | None,
        limit: int,
        bytes_max: int,
    ) -> Read:
        """As `Store.read`, from start..end, which is in the block."""
        damaged = self.look(end)
        wanted: list[int] = []
        stop = end + 1
        for offset, (topic, size) in sorted(self._sound.items()):
            if start <= offset <= end and (match is None or match(topic)):
                wanted.append(offset)
                bytes_max -= size
                if len(wanted) >= limit or bytes_max <= 0:
                    stop = offset + 1
                    break
        chosen = set(wanted)
        messages = [message for message in self._messages() if message.offset in chosen]
        messages.sort(key=lambda message: message.offset)
        if damaged and match is not None and self._adds_up(match):
            damaged = []
        cut = [range(max(r.start, start), min(r.stop, stop)) for r in damaged]
        return Read(messages, Offset(stop), [r for r in cut if r])

    @property
    def has_rows(self) -> bool:
        """Whether `read` found any row of the block, damaged or not."""
        return bool(self._sound or self._broken)

    def skip_to_next_row(self, start: int, end: int) -> Read:
        """The block has no row: go on at the next row of the table, however far it is."""
        try:
            (row,) = self._connection.execute(
                "SELECT min(offset) FROM messages WHERE offset > ?", (self.last,)
            ).fetchone()
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            row = self.last + 1
        stop = min(end, (row or end + 1) - 1) + 1
        return Read([], Offset(stop), self._accounts.without_gaps(start, stop))

    def is_indexed(self) -> bool:
        """Whether the index has every topic of the block, by the name that its messages have."""
        indexed = self._connection.execute(
            "SELECT name FROM topic_blocks JOIN topics ON id = topic_id WHERE block = ?",
            (self.number,),
        )
        return {topic for topic, _ in self._sound.values()} <= {name for (name,) in indexed}

    def _adds_up(self, match: Callable[[str], bool]) -> bool:
        """Whether the figures show that no matching message is damaged."""
        try:
            self._accounts.check_figures(self.number)
            rows = self._connection.execute(
                "SELECT name, messages FROM topic_blocks LEFT JOIN topics ON id = topic_id"
                " WHERE block = ? AND messages IS NOT NULL",
                (self.number,),
            ).fetchall()
        except (Unsound, sqlite3.DatabaseError):
            return False
        if not all(isinstance(name, str) for name, _ in rows):
            return False
        low = self._accounts.first(self._first)
        found = sum(match(topic) for at, (topic, _) in self._sound.items() if at >= low)
        expected: int = sum(messages for name, messages in rows if match(name))
        return found == expected

    def _messages(self) -> Iterator[Message]:
        """Whatever can be read, each once, nearly in order."""
        seen: set[int] = set()
        for message in self._scan():
            if message.offset not in seen:
                seen.add(message.offset)
                yield message
        for offset in range(self._first, self.last + 1):
            if offset not in seen and (found := self._look_up(offset)) is not None:
                yield found

    def _scan(self) -> Iterator[Message]:
        try:
            for row in self._connection.execute(_FROM, (self._first - BLOCK,)):
                if (message := self._message(row)) is not None:
                    yield message
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise

    def _look_up(self, offset: int) -> Message | None:
        try:
            row = self._connection.execute(_AT, (offset,)).fetchone()
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            return None
        return self._message(row) if row else None

    def _message(self, row: Sequence[Any]) -> Message | None:
        offset = row[0]
        if not self._first <= offset <= self.last:
            return None
        try:
            [message] = self._decode([row])
        except (sqlite3.DatabaseError, StoreCorrupt) as error:
            if not is_damage(error):
                raise
            self._broken.add(offset)
            return None
        return message
