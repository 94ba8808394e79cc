"""Counting: how many messages match, without reading them.

Full blocks have figures: how many messages of each topic they hold (`figures.py`). Of other blocks
the rows are counted: of the open one, of one that is wanted in part, and of those that an older
program wrote.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence

from broker.message import Offset
from broker.store.sqlite.accounts import bounds
from broker.store.sqlite.rows import BLOCK_SHIFT
from broker.store.sqlite.searching.filters import Topics
from broker.store.sqlite.searching.index import (
    BLOCKS_PER_READ,
    BLOCKS_PER_RUN,
    BLOCKS_PER_STEP_MAX,
    TopicIndex,
)

ROWS_COUNTED_MAX = 1 << 14
"""Messages that one part of `nth_last` counts one by one: 2 ms."""

_OF_TOPICS = (
    "FROM messages WHERE offset BETWEEN ? AND ? AND topic_id IN (SELECT value FROM json_each(?))"
)


class Counting:
    def __init__(
        self,
        connection: sqlite3.Connection,
        topics: Topics,
        index: TopicIndex,
        suspects: Callable[[], set[int]],
    ) -> None:
        """`suspects`: the topics whose name is damaged."""
        self._connection = connection
        self._topics = topics
        self._index = index
        self._suspects = suspects

    def count_part(self, filters: Sequence[str], start: int, end: int) -> tuple[int, Offset]:
        """A part of `Store.count`: how many of the messages that were looked at match, and from
        which offset on the others are. `start` is not below the log start."""
        wanted = self._topics.wanted(filters, self._topics.newest(), self._suspects())
        if wanted is None:
            return 0, Offset(start)
        first, last = start >> BLOCK_SHIFT, end >> BLOCK_SHIFT
        found, last, _ = self._index.blocks(first, min(last, first + BLOCKS_PER_READ - 1), wanted)
        count, counted_one_by_one = 0, 0
        for block in sorted(found):
            low, high = bounds(block)
            if found[block].messages >= 0 and start <= low and high <= end:
                count += found[block].messages
                continue
            if counted_one_by_one == BLOCKS_PER_RUN:
                return count, Offset(low)
            counted_one_by_one += 1
            here = max(start, low), min(end, high), json.dumps([*found[block].topic_ids])
            count += self._connection.execute(f"SELECT count(*) {_OF_TOPICS}", here).fetchone()[0]
        return count, Offset(min(end, bounds(last)[1]) + 1)

    def nth_last_part(
        self, filters: Sequence[str] | None, count: int, start: int, end: int
    ) -> tuple[int, Offset]:
        """A part of `Store.nth_last`, over start..end: how many of the `count` messages are still
        to be found, and from which offset on everything was looked at."""
        if filters is None or self._topics.every(filters):
            part = min(count, ROWS_COUNTED_MAX)
            row = self._connection.execute(
                "SELECT offset FROM messages WHERE offset BETWEEN ? AND ?"
                " ORDER BY offset DESC LIMIT 1 OFFSET ?",
                (start, end, part - 1),
            ).fetchone()
            return (count - part, Offset(row[0])) if row else (count, Offset(start))
        wanted = self._topics.wanted(filters, self._topics.newest(), self._suspects())
        if wanted is None:
            return count, Offset(end + 1)
        if wanted.few == set():
            return count, Offset(start)
        last, step = end >> BLOCK_SHIFT, 2 if wanted.few is None else BLOCKS_PER_STEP_MAX
        since = max(start >> BLOCK_SHIFT, last - step + 1)
        found, _, _ = self._index.blocks(since, last, wanted)
        blocks_left = BLOCKS_PER_RUN
        for block in sorted(found, reverse=True):
            low, high = bounds(block)
            if 0 <= found[block].messages < count and high <= end:
                count -= found[block].messages
                continue
            rows = self._connection.execute(
                f"SELECT offset {_OF_TOPICS} ORDER BY offset DESC LIMIT ?",
                (max(start, low), min(end, high), json.dumps([*found[block].topic_ids]), count),
            ).fetchall()
            count -= len(rows)
            if count == 0:
                return 0, Offset(rows[-1][0])
            blocks_left -= 1
            if blocks_left == 0:
                return count, Offset(max(start, low))
        return count, Offset(max(start, since << BLOCK_SHIFT))
