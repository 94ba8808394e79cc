"""What the log knows of each topic: how much there is, from when to when, and the last value.

The figures of full blocks (`topic_blocks`) tell most of it; rows are read only of the newest block,
of blocks without figures, and of those in which a topic begins and ends. Each look is short.
"""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from broker.message import Message
from broker.store.sqlite.rows import BLOCK_SHIFT
from broker.topics import TopicTree
from cli.log.history import Log

BLOCKS_PER_LOOK = 128
SOUGHT_MAX = 200
"""Up to this many topics are sought one by one in each block. With more, all of the block are
read."""
PAGE_TOPICS = 500

_FIGURES = """
SELECT topic_id, sum(t.messages), sum(t.bytes), min(block), max(block)
FROM blocks b JOIN topic_blocks t USING (block)
WHERE block BETWEEN ? AND ? AND b.messages >= 0 AND t.messages > 0 GROUP BY topic_id
"""
_FIGURES_OF = """
SELECT topic_id, sum(t.messages), sum(t.bytes), min(t.block), max(t.block)
FROM blocks b CROSS JOIN json_each(?) CROSS JOIN topic_blocks t
ON t.block = b.block AND t.topic_id = value
WHERE b.block BETWEEN ? AND ? AND b.messages >= 0 AND t.messages > 0 GROUP BY topic_id
"""
_WITH_FIGURES = "SELECT block FROM blocks WHERE block BETWEEN ? AND ? AND messages >= 0"
_ROWS = """
SELECT topic_id, count(*), sum(length(payload) + length(properties)) FROM messages
WHERE offset BETWEEN ? AND ? GROUP BY topic_id
"""
_END = """
SELECT topic_id, {end}(offset), published_at_us FROM messages
WHERE offset BETWEEN ? AND ? AND topic_id IN (SELECT value FROM json_each(?)) GROUP BY topic_id
"""


@dataclass(slots=True)
class TopicFigures:
    """`bytes` are of payloads and properties; `first` and `last` are offsets."""

    topic: str
    messages: int = 0
    bytes: int = 0
    first: int = 0
    first_at_us: int = 0
    last: int = 0
    last_at_us: int = 0


class TopicsOfLog:
    def __init__(self, connection: sqlite3.Connection, filters: Sequence[str]) -> None:
        self.log = Log(connection)
        self.looked: Callable[[int], object] = bool
        """Is told how many offsets were looked at so far."""
        self._connection = connection
        self._names = _names(connection, filters)
        self._start = self.log.start
        self.high_watermark = self.log.high_watermark

    def figures(self) -> list[TopicFigures]:
        """Of each topic that has messages, by name."""
        figures: defaultdict[int, TopicFigures] = defaultdict(lambda: TopicFigures(""))
        ends: dict[int, list[int]] = {}
        """By topic, the blocks in which it begins and ends."""
        first, last = self._start >> BLOCK_SHIFT, self.high_watermark >> BLOCK_SHIFT
        for block in range(first, last + 1, BLOCKS_PER_LOOK):
            until = min(last, block + BLOCKS_PER_LOOK - 1)
            for topic_id, messages, size, low, high in self._look(block, until):
                if topic_id in self._names:
                    of_topic = figures[topic_id]
                    of_topic.messages += messages
                    of_topic.bytes += size
                    begin, end = ends.get(topic_id, (low, high))
                    ends[topic_id] = [min(begin, low), max(end, high)]
            self.looked((until + 1 << BLOCK_SHIFT) - self._start)
        for topic_id, offset, at_us in self._ends("min", {t: b for t, (b, _) in ends.items()}):
            figures[topic_id].first, figures[topic_id].first_at_us = offset, at_us
        for topic_id, offset, at_us in self._ends("max", {t: b for t, (_, b) in ends.items()}):
            figures[topic_id].last, figures[topic_id].last_at_us = offset, at_us
        for topic_id, of_topic in figures.items():
            of_topic.topic = self._names[topic_id]
        return sorted(figures.values(), key=lambda of_topic: of_topic.topic)

    def latest(self, through: int) -> Iterator[list[Message]]:
        """The last message of each topic at or below the offset `through`, by topic, in pages."""
        found: dict[int, int] = {}
        missing = set(self._names)
        through = min(through, self.high_watermark)
        for block in range(through >> BLOCK_SHIFT, (self._start >> BLOCK_SHIFT) - 1, -1):
            if not missing:
                break
            here = self._topics_in(block, missing)
            if here:
                bounds = *_bounds(block, self._start, through), json.dumps([*here])
                for topic_id, offset, _ in self._connection.execute(_END.format(end="max"), bounds):
                    found[topic_id] = offset
                    missing.discard(topic_id)
            if block % BLOCKS_PER_LOOK == 0:
                self.looked(through - (block << BLOCK_SHIFT))
        topics = iter(sorted(found, key=self._names.__getitem__))
        while page := [*islice(topics, PAGE_TOPICS)]:
            messages = self.log.at([found[topic_id] for topic_id in page])
            yield sorted(messages, key=lambda message: message.topic)

    def _look(self, first: int, last: int) -> Iterator[tuple[int, int, int, int, int]]:
        """Topic, messages, bytes, and the first and last of these blocks that have it."""
        if len(self._names) <= SOUGHT_MAX:
            sought = json.dumps([*self._names]), first, last
            yield from self._connection.execute(_FIGURES_OF, sought).fetchall()
        else:
            yield from self._connection.execute(_FIGURES, (first, last)).fetchall()
        counted = {block for (block,) in self._connection.execute(_WITH_FIGURES, (first, last))}
        for block in sorted({*range(first, last + 1)} - counted):
            bounds = _bounds(block, self._start, self.high_watermark)
            for topic_id, messages, size in self._connection.execute(_ROWS, bounds).fetchall():
                yield topic_id, messages, size, block, block

    def _ends(self, end: str, blocks: dict[int, int]) -> Iterable[tuple[int, int, int]]:
        by_block: defaultdict[int, list[int]] = defaultdict(list)
        for topic_id, block in blocks.items():
            by_block[block].append(topic_id)
        for block, topic_ids in by_block.items():
            bounds = _bounds(block, self._start, self.high_watermark)
            parameters = (*bounds, json.dumps(topic_ids))
            yield from self._connection.execute(_END.format(end=end), parameters).fetchall()

    def _topics_in(self, block: int, wanted: set[int]) -> set[int]:
        if len(wanted) <= SOUGHT_MAX:
            rows = self._connection.execute(
                "SELECT topic_id FROM json_each(?) CROSS JOIN topic_blocks"
                " ON block = ? AND topic_id = value",
                (json.dumps([*wanted]), block),
            )
            return {topic_id for (topic_id,) in rows}
        rows = self._connection.execute(
            "SELECT topic_id FROM topic_blocks WHERE block = ?", (block,)
        )
        return {topic_id for (topic_id,) in rows} & wanted


def _bounds(block: int, start: int, end: int) -> tuple[int, int]:
    return max(start, block << BLOCK_SHIFT), min(end, (block + 1 << BLOCK_SHIFT) - 1)


def _names(connection: sqlite3.Connection, filters: Sequence[str]) -> dict[int, str]:
    """By identifier, those that match; without filters all."""
    names = connection.execute("SELECT id, name FROM topics")
    if not filters:
        return dict(names)
    tree: TopicTree[None, str] = TopicTree()
    for topic_filter in filters:
        tree.add(topic_filter, None, topic_filter)
    return {number: name for number, name in names if tree.match(name)}
