"""What a reader should find: the offsets that have a message, and the figures of each block.

From `accounted_from` on, every offset between the log start and the high watermark has a message,
lies in a row of `gaps` or has its bit in `removed`, so that a missing message is noticed. For older
offsets nothing is claimed. Whoever compares what was read with `removed` reads `removed` later:
then what retention removes meanwhile is not taken for damage.
"""

from __future__ import annotations

import sqlite3
from bisect import bisect_right
from collections.abc import Container, Sequence
from itertools import accumulate
from typing import Any

from broker.store.sqlite.retention import removed
from broker.store.sqlite.rows import BLOCK_SHIFT

CHECKED_MAX = 65_536
"""Blocks that are remembered as checked. Beyond this, all are forgotten and checked once more."""

_FIGURES = f"""
SELECT 0, block, topic_ids, messages, bytes, checksums FROM blocks WHERE block BETWEEN ?1 AND ?2
UNION ALL
SELECT 1, block, sum(topic_id), sum(messages), sum(bytes), sum(checksums) FROM topic_blocks
WHERE block BETWEEN ?1 AND ?2 AND messages IS NOT NULL GROUP BY block
UNION ALL
SELECT 2, start, newest, newest_topic, (
    SELECT count(*) FROM messages
    WHERE offset BETWEEN max(start, ?3, newest >> {BLOCK_SHIFT} << {BLOCK_SHIFT}) AND ?4
), 0
FROM log, (SELECT ifnull(max(offset), 0) AS newest FROM messages),
    (SELECT ifnull(max(id), 0) AS newest_topic FROM topics)
UNION ALL
SELECT 3, block, offsets, 0, 0, 0 FROM removed WHERE block BETWEEN ?1 AND ?2
"""
"""One statement sees one moment: a `trim` in between could not make its parts differ."""


class Unsound(Exception):
    """The rows of this block do not agree with its figures or its index."""

    def __init__(self, block: int) -> None:
        self.block = block


def bounds(block: int) -> tuple[int, int]:
    """The first and the last offset of a block."""
    return block << BLOCK_SHIFT, (block + 1 << BLOCK_SHIFT) - 1


class Accounts:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._accounted_from: int
        self._gaps: list[tuple[int, int]] = connection.execute(
            "SELECT first, last FROM gaps ORDER BY first"
        ).fetchall()
        (self._accounted_from,) = connection.execute("SELECT accounted_from FROM log").fetchone()
        self._gaps_begin = [first for first, _ in self._gaps]
        self._unused = [0, *accumulate(last - first + 1 for first, last in self._gaps)]
        """How many offsets are in the gaps before each: salvage may leave many gaps."""
        self._checked: set[int] = set()

    def first(self, offset: int) -> int:
        """The first offset at or above `offset` for which anything is claimed."""
        start: int = self._connection.execute("SELECT start FROM log").fetchone()[0]
        return max(offset, start, self._accounted_from)

    def expected(self, first: int, last: int) -> int:
        """How many messages first..last should hold. `first` comes from the method `first`."""
        if first > last:
            return 0
        return self._given_out(first, last) - removed.count(self._connection, first, last)

    def _given_out(self, first: int, last: int) -> int:
        """How many offsets of first..last are in no gap."""
        return last - first + 1 - self._unused_up_to(last) + self._unused_up_to(first - 1)

    def _unused_up_to(self, offset: int) -> int:
        """How many offsets up to this one are in gaps."""
        before = bisect_right(self._gaps_begin, offset)
        if before == 0:
            return 0
        _, last = self._gaps[before - 1]
        return self._unused[before] - max(0, last - offset)

    def without_gaps(self, start: int, stop: int) -> list[range]:
        """The offsets from start to stop - 1 that should have a message."""
        ranges: list[range] = []
        begin = self.first(start)
        for low, high in self._gaps:
            if high >= begin and low < stop:
                ranges.append(range(begin, low))
                begin = high + 1
        ranges.append(range(begin, stop))
        return [kept for part in ranges for kept in removed.without(self._connection, part)]

    def missing(self, first: int, last: int, found: Container[int]) -> list[int]:
        """The offsets of one block, first..last, that should have a message and are not `found`."""
        return [
            offset
            for part in self.without_gaps(first, last + 1)
            for offset in part
            if offset not in found
        ]

    def claimed(self, offsets: Sequence[int]) -> list[int]:
        """The given offsets that should have a message."""
        low = self.first(0)
        (newest,) = self._connection.execute("SELECT max(offset) FROM messages").fetchone()
        return [
            offset
            for offset in offsets
            if low <= offset <= (newest or 0) and self.expected(offset, offset)
        ]

    def all_there(self, offsets: list[int], start: int, stop: int) -> None:
        """Check that these rising offsets are all that start..stop - 1 should have.

        Raises Unsound: one is missing.
        """
        if len(offsets) == stop - start:
            return
        first = self.first(start)
        found = [offset for offset in offsets if offset >= first]
        if len(found) == self.expected(first, stop - 1):
            return
        begin = first
        for offset in [*found, stop]:
            if self.expected(begin, offset - 1):
                gap = next((high for low, high in self._gaps if low <= begin <= high), begin - 1)
                raise Unsound(gap + 1 >> BLOCK_SHIFT)
            begin = offset + 1
        raise Unsound(first >> BLOCK_SHIFT)

    def check_index(self, first: int, last: int, end: int) -> int:
        """Check that the index has every row of the blocks first..last (once for each block), and
        that the newest block, which has no figures yet, has every message (at each call).

        Nothing above the offset `end` is read. Returns the newest topic. Raises Unsound.
        """
        while first in self._checked and first <= last:
            first += 1
        figures: list[dict[int, list[Any]]] = [{}, {}, {}, {}]
        asked = first, last, self._accounted_from, end
        for kind, key, *values in self._connection.execute(_FIGURES, asked):
            figures[kind][key] = values
        totals, sums, moment, gone = figures
        [(start, (newest, newest_topic, count, _))] = moment.items()
        for block in sorted(totals.keys() | sums.keys()):
            if totals.get(block) != sums.get(block):
                raise Unsound(block)
        low = max(start, self._accounted_from)
        open_block = newest >> BLOCK_SHIFT

        def expected(block: int, first: int, last: int) -> int:
            if first > last:
                return 0
            bits = int.from_bytes(gone[block][0], "little") if block in gone else 0
            return self._given_out(first, last) - (
                removed.within(bits, block, first, last).bit_count() if bits else 0
            )

        for block in range(max(first, low >> BLOCK_SHIFT), last + 1):
            begin, until = bounds(block)
            if block == open_block:
                here = expected(block, max(begin, low), min(until, end))
                if block not in totals and count != here:
                    raise Unsound(block)
            elif expected(block, max(begin, low), min(until, end)) and (
                block not in totals
                or (begin >= low and totals[block][1] != expected(block, begin, until))
            ):
                raise Unsound(block)
        if len(self._checked) > CHECKED_MAX:
            self._checked.clear()
        self._checked.update(range(first, min(last + 1, open_block)))
        return int(newest_topic)

    def check_figures(self, block: int) -> None:
        """Raises Unsound: the block has no figures, or they do not add up."""
        rows = self._connection.execute(_FIGURES, (block, block, 0, 0)).fetchall()
        rows = [row for row in rows if row[0] != 3]
        if len(rows) != 3 or rows[0][1:] != rows[1][1:]:
            raise Unsound(block)
