"""Where a time lies in the log, also where the clock was set back and times do not rise.

The figures of a block have its newest time: what has no message of that time or later is passed
over without reading it, a few thousand blocks in a few ms. The rows decide of the other blocks:
the one that is looked for, the newest, and those that an older program wrote without figures.

A search is done part by part, so that no look at the database is long.
"""

from __future__ import annotations

import sqlite3

from broker.message import Offset
from broker.store.sqlite.rows import BLOCK_SHIFT

BLOCKS_PER_PART = 8192
"""Blocks of which one part reads the figures: 3 ms."""
LOOKS_PER_PART = 16
"""Blocks of which one part reads the rows: about as long."""

_NEWEST = """
SELECT block, CASE WHEN messages < 0 THEN NULL ELSE newest_at_us END FROM blocks
WHERE block BETWEEN ? AND ?
"""
"""A block that is known to be damaged has impossible figures."""


class When:
    """`offset` is what was found, once it is `done`."""

    def __init__(self, time_us: int, start: int, end: int) -> None:
        """Over start..end."""
        self.done = False
        self.offset = Offset(0)
        self._time_us = time_us
        self._start = start
        self._end = end

    def part(self, connection: sqlite3.Connection) -> None:
        """Look at the next part."""
        raise NotImplementedError

    def whole(self, connection: sqlite3.Connection) -> Offset:
        while not self.done:
            self.part(connection)
        return self.offset

    def _found(self, offset: int) -> None:
        self.offset = Offset(offset)
        self.done = True

    def _bounds(self, block: int) -> tuple[int, int]:
        first, last = block << BLOCK_SHIFT, (block + 1 << BLOCK_SHIFT) - 1
        return max(first, self._start), min(last, self._end)


class FirstAt(When):
    """The first offset published at or after the time; end + 1 if there is none."""

    def part(self, connection: sqlite3.Connection) -> None:
        if self._start > self._end:
            return self._found(self._end + 1)
        block = self._start >> BLOCK_SHIFT
        last = min(self._end >> BLOCK_SHIFT, block + BLOCKS_PER_PART - 1)
        newest = dict(connection.execute(_NEWEST, (block, last)))
        looks = LOOKS_PER_PART
        while block <= last and looks:
            at_us = newest.get(block)
            if at_us is None or at_us >= self._time_us:
                looks -= 1
                low, high = self._bounds(block)
                row = connection.execute(
                    "SELECT offset FROM messages WHERE offset BETWEEN ? AND ?"
                    " AND published_at_us >= ? ORDER BY offset LIMIT 1",
                    (low, high, self._time_us),
                ).fetchone()
                if row is not None:
                    return self._found(row[0])
                if at_us is None:  # There may be none for long: a stop leaves offsets out.
                    (there,) = connection.execute(
                        "SELECT min(offset) FROM messages WHERE offset > ?", (high,)
                    ).fetchone()
                    if there is None or there > self._end:
                        return self._found(self._end + 1)
                    block = (there >> BLOCK_SHIFT) - 1
            block += 1
        self._start = max(self._start, block << BLOCK_SHIFT)
        return None


class LastBefore(When):
    """The last offset published before the time; start - 1 if there is none.

    From the end back to the first block that has earlier messages only, and from there on as long
    as a block has an earlier message. Left out is what lies behind a block of later messages: a few
    messages of a clock that was behind; or those of the block in which the time itself is, if the
    clock was ahead for a whole block just before.
    """

    def __init__(self, time_us: int, start: int, end: int) -> None:
        super().__init__(time_us, start, end)
        self._high = end
        """Of what is behind it no block has earlier messages only."""
        self._forward: int | None = None
        """The next block to look at, once such a block was found; or there is none."""
        self.offset = Offset(start - 1)

    def part(self, connection: sqlite3.Connection) -> None:
        if self._forward is None:
            self._part_back(connection)
        else:
            self._part_forward(connection, self._forward)

    def _part_back(self, connection: sqlite3.Connection) -> None:
        if self._start > self._high:
            self._forward = self._start >> BLOCK_SHIFT
            return
        block = self._high >> BLOCK_SHIFT
        first = max(self._start >> BLOCK_SHIFT, block - BLOCKS_PER_PART + 1)
        newest = dict(connection.execute(_NEWEST, (first, block)))
        looks = LOOKS_PER_PART
        while block >= first and looks:
            at_us = newest.get(block)
            if at_us is None or at_us < self._time_us:
                looks -= 1
                low, high = self._bounds(block)
                if (last := self._last_in(connection, low, high)) is not None:
                    self.offset = Offset(last)
                    self._forward = block + 1
                    return
                (there,) = connection.execute(
                    "SELECT max(offset) FROM messages WHERE offset < ?", (low,)
                ).fetchone()
                if there is None or there < self._start:
                    block = first = self._start >> BLOCK_SHIFT
                else:
                    block = min(block, (there >> BLOCK_SHIFT) + 1)
            block -= 1
        self._high = (block + 1 << BLOCK_SHIFT) - 1

    def _part_forward(self, connection: sqlite3.Connection, block: int) -> None:
        low, high = self._bounds(block)
        if low > self._end:
            self.done = True
        elif (last := self._last_in(connection, low, high)) is not None:
            self.offset = Offset(last)
            self._forward = block + 1
        else:
            self.done = True

    def _last_in(self, connection: sqlite3.Connection, low: int, high: int) -> int | None:
        row = connection.execute(
            "SELECT offset FROM messages WHERE offset BETWEEN ? AND ?"
            " AND published_at_us < ? ORDER BY offset DESC LIMIT 1",
            (low, high, self._time_us),
        ).fetchone()
        return None if row is None else int(row[0])
