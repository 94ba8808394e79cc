"""What a reader should find: the offsets that have a message, and the figures of each block.

From `accounted_from` on, every offset between the log start and the high watermark has a message or
lies in a row of `gaps`, so that a missing message is noticed. For older offsets nothing is claimed.
"""

from __future__ import annotations

import sqlite3
from bisect import bisect_right
from collections.abc import Container, Iterable, Sequence
from itertools import accumulate

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
"""
"""One statement sees one moment: a `trim` in between could not make its parts differ."""


class Unsound(Exception):
    """The rows of this block do not agree with its figures or its index."""

    def __init__(self, block: int) -> None:
        self.block = block


def bounds(block: int) -> tuple[int, int]:
    """The first and the last offset of a block."""
    return block << BLOCK_SHIFT, (block + 1 << BLOCK_SHIFT) - 1


def as_ranges(offsets: Iterable[int]) -> list[range]:
    """Rising offsets as ranges."""
    ranges: list[range] = []
    for offset in offsets:
        if ranges and offset == ranges[-1].stop:
            ranges[-1] = range(ranges[-1].start, offset + 1)
        else:
            ranges.append(range(offset, offset + 1))
    return ranges


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
        return [part for part in (*ranges, range(begin, stop)) if part]

    def missing(self, first: int, last: int, found: Container[int]) -> list[int]:
        """The offsets of one block, first..last, that should have a message and are not `found`."""
        gaps = [gap for gap in self._gaps if gap[0] <= last and gap[1] >= first]
        return [
            offset
            for offset in range(self.first(first), last + 1)
            if offset not in found and not any(low <= offset <= high for low, high in gaps)
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
        figures: list[dict[int, list[int]]] = [{}, {}, {}]
        asked = first, last, self._accounted_from, end
        for kind, key, *values in self._connection.execute(_FIGURES, asked):
            figures[kind][key] = values
        totals, sums, moment = figures
        [(start, (newest, newest_topic, count, _))] = moment.items()
        for block in sorted(totals.keys() | sums.keys()):
            if totals.get(block) != sums.get(block):
                raise Unsound(block)
        low = max(start, self._accounted_from)
        open_block = newest >> BLOCK_SHIFT
        for block in range(max(first, low >> BLOCK_SHIFT), last + 1):
            begin, until = bounds(block)
            if block == open_block:
                if block not in totals and count != self.expected(max(begin, low), min(until, end)):
                    raise Unsound(block)
            elif self.expected(max(begin, low), min(until, end)) and (
                block not in totals
                or (begin >= low and totals[block][1] != self.expected(begin, until))
            ):
                raise Unsound(block)
        if len(self._checked) > CHECKED_MAX:
            self._checked.clear()
        self._checked.update(range(first, min(last + 1, open_block)))
        return newest_topic

    def check_figures(self, block: int) -> None:
        """Raises Unsound: the block has no figures, or they do not add up."""
        rows = self._connection.execute(_FIGURES, (block, block, 0, 0)).fetchall()
        if len(rows) != 3 or rows[0][1:] != rows[1][1:]:
            raise Unsound(block)
