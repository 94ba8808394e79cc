"""The sparse index `topic_blocks`: which blocks of 1024 offsets hold messages of which topics."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

from broker.store.sqlite.accounts import Accounts, Unsound, bounds
from broker.store.sqlite.rows import BLOCK_SHIFT
from broker.store.sqlite.searching.filters import WantedTopics

BLOCKS_PER_STEP_MIN, BLOCKS_PER_STEP_MAX = 8, 64
BLOCKS_PER_READ = 128
TOPIC_BLOCKS_PER_READ = 2048
"""Most blocks, and about the most rows of `topic_blocks`, that one `read` looks at before it
returns: a few ms."""
BLOCKS_PER_RUN = 8
"""Blocks of which one statement reads the messages of some topics, and passes over the others."""

_SEEK_BLOCKS = """
WITH RECURSIVE blocks (block) AS (
    SELECT ?1 UNION ALL SELECT block + 1 FROM blocks WHERE block < ?2
)
SELECT b.block, min(ifnull(t.messages, -1)), sum(t.messages) FROM blocks b
CROSS JOIN json_each(?3) wanted
CROSS JOIN topic_blocks t ON t.block = b.block AND t.topic_id = wanted.value
GROUP BY b.block
"""
_READ_BLOCKS = """
SELECT block, topic_id, messages FROM topic_blocks WHERE block BETWEEN ? AND ?
ORDER BY block, topic_id LIMIT ?
"""


@dataclass(slots=True)
class Found:
    """The wanted topics in a block, and how many messages they have there (-1: not known)."""

    topic_ids: set[int]
    messages: int
    nothing_else: bool = False


@dataclass(slots=True)
class Run:
    """The wanted topics that offsets up to `last` may hold; None: they hold no other topics.

    `messages`: how many wanted messages each block holds, where that is known.
    """

    last: int
    topic_ids: set[int] | None
    messages: dict[int, int]


def _join(first: int, last: int, found: dict[int, Found]) -> Iterator[Run]:
    """Blocks first..last as runs. Neighbours that one statement can read are one run.

    A block without figures is a run of its own. In a longer run a damaged row of an earlier block
    could lead the statement astray, and nobody would notice that messages are missing.
    """

    def kind(block: int) -> tuple[bool | None, int]:
        if block not in found:
            return None, 0
        counted = found[block].messages >= 0
        return found[block].nothing_else, block // BLOCKS_PER_RUN if counted else -block

    for (nothing_else, _), blocks in groupby(range(first, last + 1), kind):
        topic_ids: set[int] = set()
        messages: dict[int, int] = {}
        for block in blocks:
            if block in found:
                topic_ids |= found[block].topic_ids
                if found[block].messages >= 0:
                    messages[block] = found[block].messages
        yield Run(bounds(block)[1], None if nothing_else else topic_ids, messages)


class TopicIndex:
    def __init__(self, connection: sqlite3.Connection, accounts: Accounts) -> None:
        self._connection = connection
        self._accounts = accounts

    def runs(self, start: int, end: int, wanted: WantedTopics, suspects: set[int]) -> Iterator[Run]:
        """Cut start..end, or as much of it as one read looks at, into runs.

        Raises Unsound: rows of the index are missing, or a block holds one of the `suspects`.
        """
        block = start >> BLOCK_SHIFT
        last = min(end >> BLOCK_SHIFT, block + BLOCKS_PER_READ - 1)
        step, rows = BLOCKS_PER_STEP_MIN, 0
        while block <= last and rows < TOPIC_BLOCKS_PER_READ:
            until = min(last, block + step - 1)
            if step > BLOCKS_PER_STEP_MIN:  # The reader has checked the first step.
                self._accounts.check_index(block, until, end)
            if suspects and (among := self._seek(block, until, suspects)):
                raise Unsound(min(among))
            found, until, looked = self.blocks(block, until, wanted)
            rows += looked
            yield from _join(block, until, found)
            block = until + 1
            step = min(step * 2, BLOCKS_PER_STEP_MAX)

    def blocks(
        self, first: int, last: int, wanted: WantedTopics
    ) -> tuple[dict[int, Found], int, int]:
        """The blocks from `first` on that hold any wanted topic; the last block that was looked at,
        at most `last`; and the number of rows that were looked up."""
        if wanted.few is not None:
            found = self._seek(first, last, wanted.few)
            return found, last, (last - first + 1) * len(wanted.few)
        rows_max = TOPIC_BLOCKS_PER_READ + (1 << BLOCK_SHIFT)
        rows = self._connection.execute(_READ_BLOCKS, (first, last, rows_max)).fetchall()
        if len(rows) == rows_max:
            last = rows[-1][0] - 1  # Of that block there may be more.
        found = {}
        for block, group in groupby(rows, itemgetter(0)):
            if block > last:
                break
            here = {topic_id: messages for _, topic_id, messages in group}
            if topic_ids := wanted.among(here):
                counts = [here[topic_id] for topic_id in topic_ids]
                messages = -1 if None in counts else sum(counts)
                found[block] = Found(topic_ids, messages, len(topic_ids) == len(here))
        return found, last, len(rows) + 1

    def _seek(self, first: int, last: int, topic_ids: set[int]) -> dict[int, Found]:
        rows = self._connection.execute(_SEEK_BLOCKS, (first, last, json.dumps([*topic_ids])))
        return {
            block: Found(topic_ids, messages if known >= 0 else -1)
            for block, known, messages in rows
        }
