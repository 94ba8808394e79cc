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

SEEK_TOPICS_MAX = 16
"""Up to so many topics are looked up one by one in each block; for more, all topics of the block
are read."""

BLOCKS_PER_STEP_MIN, BLOCKS_PER_STEP_MAX = 8, 2048
TOPIC_BLOCKS_PER_READ = 100_000
"""About how many rows of `topic_blocks` one `read` looks up before it returns: 0.1 s."""

_SEEK_BLOCKS = """
WITH RECURSIVE blocks (block) AS (
    SELECT ?1 UNION ALL SELECT block + 1 FROM blocks WHERE block < ?2
)
SELECT b.block, min(ifnull(t.messages, -1)), sum(t.messages) FROM blocks b
CROSS JOIN json_each(?3) wanted
CROSS JOIN topic_blocks t ON t.block = b.block AND t.topic_id = wanted.value
GROUP BY b.block
"""
_READ_BLOCKS = "SELECT block, topic_id, messages FROM topic_blocks WHERE block BETWEEN ? AND ?"


@dataclass(slots=True)
class Found:
    """What a block holds of the wanted topics: which, and how many messages (-1: not known)."""

    topic_ids: set[int]
    messages: int
    nothing_else: bool = False


@dataclass(slots=True)
class Run:
    """The wanted topics that offsets up to `last` may hold; None: they hold no other topics.

    `messages`: how many of them the blocks hold, as far as that is known.
    """

    last: int
    topic_ids: set[int] | None
    messages: dict[int, int]


def _join(first: int, last: int, found: dict[int, Found]) -> Iterator[Run]:
    """Blocks first..last as runs. Neighbours that one statement can read are one run."""

    def kind(block: int) -> bool | None:
        return found[block].nothing_else if block in found else None

    for nothing_else, blocks in groupby(range(first, last + 1), kind):
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

    def runs(self, start: int, end: int, topic_ids: set[int], suspects: set[int]) -> Iterator[Run]:
        """Cut start..end, or as much of it as one read looks at, into runs.

        Raises Unsound: rows of the index are missing, or a block holds one of the `suspects`.
        """
        block, last = start >> BLOCK_SHIFT, end >> BLOCK_SHIFT
        step, rows = BLOCKS_PER_STEP_MIN, 0
        while block <= last and rows < TOPIC_BLOCKS_PER_READ:
            until = min(last, block + step - 1)
            if step > BLOCKS_PER_STEP_MIN:  # The reader has checked the first step.
                self._accounts.check_index(block, until, end)
            if suspects and (among := self.blocks(block, until, suspects)[0]):
                raise Unsound(min(among))
            found, looked = self.blocks(block, until, topic_ids)
            rows += looked
            yield from _join(block, until, found)
            block = until + 1
            step = min(step * 2, BLOCKS_PER_STEP_MAX)

    def blocks(self, first: int, last: int, topic_ids: set[int]) -> tuple[dict[int, Found], int]:
        """The blocks in first..last that hold any of the topics, and the number of rows that were
        looked up."""
        if len(topic_ids) <= SEEK_TOPICS_MAX:
            rows = self._connection.execute(_SEEK_BLOCKS, (first, last, json.dumps([*topic_ids])))
            found = {
                block: Found(topic_ids, messages if known >= 0 else -1)
                for block, known, messages in rows
            }
            return found, (last - first + 1) * len(topic_ids)
        looked = 0
        found = {}
        rows = self._connection.execute(_READ_BLOCKS, (first, last))
        for block, group in groupby(rows, itemgetter(0)):
            here = {topic_id: messages for _, topic_id, messages in group}
            looked += len(here)
            if wanted := here.keys() & topic_ids:
                counts = [here[topic_id] for topic_id in wanted]
                messages = -1 if None in counts else sum(counts)
                found[block] = Found(wanted, messages, len(wanted) == len(here))
        return found, looked + 1
