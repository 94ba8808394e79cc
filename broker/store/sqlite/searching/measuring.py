"""Measuring: how much is unread, for many subscribers in one pass over the figures of the blocks.

The pass goes from the newest block down to the block of the lowest cursor, and adds up what each
set of filters matches. Where it comes to the block of a cursor, the sum above is the answer, with
the rows of that one block that lie above the cursor. So subscribers that have read nearly all cost
nearly nothing, a thousand that are behind share one pass, and no message is read but in the blocks
where cursors are.

- While few topics are wanted they are sought in each block, else all topics of a block are read.
- `#` takes the figures over all topics.
- Rows are counted where there are no figures: in the open block, and where an older program wrote.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from functools import partial

from broker.cache import Cache
from broker.message import WallUs
from broker.store import Amount, Stretch
from broker.store.sqlite.accounts import bounds
from broker.store.sqlite.rows import BLOCK_SHIFT
from broker.store.sqlite.searching.filters import Topics
from broker.store.sqlite.searching.search import Search, TopicFilters
from broker.topics import TopicTree

ROWS_PER_PART = 10_000
"""Rows that one part looks at, about: a few ms."""
BLOCKS_PER_STEP_MAX = 256
SOUGHT_SETS_MAX = 200
SOUGHT_TOPICS_MAX = 400
"""With more sets of filters, or more topics, it is not looked for which these are."""
SEEK_ROWS = 4
"""To seek a topic in a block takes as long as to read so many rows."""
ROWS_KEPT = 8
"""Blocks whose rows are kept for the next cursor: many cursors are in the same one."""

_ALL_TOPICS = (
    "SELECT ifnull(sum(messages), 0), ifnull(sum(bytes), 0), min(block) FROM blocks"
    " WHERE block BETWEEN ? AND ? AND messages > 0"
)
_UNCOUNTED_IN_ALL = "SELECT block FROM blocks WHERE block BETWEEN ? AND ? AND messages < 0"
_BY_TOPIC = """
SELECT topic_id, sum(messages), sum(bytes), min(block), count(*), count(*) - count(messages)
FROM topic_blocks WHERE block BETWEEN ?1 AND ?2 GROUP BY topic_id
"""
_BY_WANTED = _BY_TOPIC.replace(
    " GROUP", " AND +topic_id IN (SELECT value FROM json_each(?3)) GROUP"
)
_SOUGHT = """
WITH RECURSIVE looked_at (block) AS (
    SELECT ?1 UNION ALL SELECT block + 1 FROM looked_at WHERE block < ?2
)
SELECT t.topic_id, sum(t.messages), sum(t.bytes), min(t.block), count(*),
    count(*) - count(t.messages)
FROM looked_at b CROSS JOIN json_each(?3) wanted
CROSS JOIN topic_blocks t ON t.block = b.block AND t.topic_id = wanted.value
GROUP BY t.topic_id
"""
_UNCOUNTED = (
    "SELECT DISTINCT block FROM topic_blocks WHERE block BETWEEN ? AND ? AND messages IS NULL"
)
_ROWS = (
    "SELECT offset, topic_id, length(payload) + length(properties), published_at_us FROM messages"
    " WHERE offset BETWEEN ? AND ? ORDER BY offset"
)

_NAMES = "SELECT id, name FROM topics WHERE id IN (SELECT value FROM json_each(?))"

Row = tuple[int, int, int, int]
"""Offset, topic, bytes, published at."""


class _Set:
    """A set of filters: what it matches of the blocks above."""

    __slots__ = ("bytes", "filters", "lowest", "messages", "search", "topics", "waiting")

    def __init__(self, filters: tuple[str, ...]) -> None:
        self.filters = filters
        self.search = Search("SELECT name, id AS value FROM topics", TopicFilters(filters))
        self.topics: set[int] = set()
        """Those that match, once the search is done, or at least so many."""
        self.waiting = 0
        """Stretches that are not measured yet."""
        self.messages = 0
        self.bytes = 0
        self.lowest = -1
        """The oldest block so far with a message that matches; -1: none."""

    def add(self, messages: int, size: int, block: int) -> None:
        self.messages += messages
        self.bytes += size
        self.lowest = block if self.lowest < 0 else min(self.lowest, block)


class Measure:
    """Call `part` until it is `done`, on any connection; then `amounts` has the answers."""

    def __init__(self, stretches: Sequence[Stretch], start: int, end: int) -> None:
        """Of the messages in start..end, which is not below the log start."""
        self.amounts = [Amount() for _ in stretches]
        self._start, self._end = start, end
        self._sets: dict[tuple[str, ...], _Set] = {}
        self._tree: TopicTree[int, _Set] = TopicTree()
        for stretch in stretches:
            if stretch.filters not in self._sets:
                self._add_set(_Set(stretch.filters))
        self._waiting: list[tuple[int, int, _Set]] = []
        """After which offset, the index in `amounts`, and the set; the highest offset last."""
        for index, stretch in enumerate(stretches):
            after = max(stretch.after, start - 1)
            if after < end and stretch.filters:
                self._waiting.append((after, index, self._sets[stretch.filters]))
                self._sets[stretch.filters].waiting += 1
        self._waiting.sort(key=lambda waiting: waiting[0])
        self._unfinished = dict.fromkeys([of for of in self._sets.values() if of.waiting])
        self._block = end >> BLOCK_SHIFT
        """The newest block that is not added up."""
        self._step = 8
        self._rows_per_block = 1.0
        """Of `topic_blocks`, where that was looked at last."""
        self._known = (-1, "", 0)
        """For how many sets of filters this is; the wanted topics, as JSON; and how many."""
        self._matching: Cache[int, Sequence[_Set]] = Cache()
        self._rows: dict[int, list[Row]] = {}

    def _add_set(self, added: _Set) -> None:
        self._sets[added.filters] = added
        for topic_filter in added.filters:
            self._tree.add(topic_filter, id(added), added)

    @property
    def done(self) -> bool:
        return not self._waiting

    def part(self, connection: sqlite3.Connection, topics: Topics) -> None:
        """Add up some blocks, or answer for some cursors. Raises sqlite3.Error."""
        rows = 0
        while self._waiting and rows < ROWS_PER_PART:
            block = self._waiting[-1][0] >> BLOCK_SHIFT
            if block < self._block:
                rows += self._add_up(connection, topics, block + 1)
            else:
                rows += self._answer(connection, block)

    # Cursors

    def _answer(self, connection: sqlite3.Connection, block: int) -> int:
        """For the cursors in this block. How many rows were read."""
        read = 0
        while self._waiting and self._waiting[-1][0] >> BLOCK_SHIFT == block:
            after, index, of = self._waiting[-1]
            if read >= ROWS_PER_PART:
                break
            _, last = bounds(block)
            amount = self.amounts[index]
            amount.messages, amount.bytes = of.messages, of.bytes
            if after < min(last, self._end):
                read += self._rows_of(connection, block)
                for offset, topic_id, size, at_us in self._rows[block]:
                    if offset > after and of in self._sets_of(connection, topic_id):
                        amount.messages += 1
                        amount.bytes += size
                        if amount.oldest_at_us is None:
                            amount.oldest_at_us = WallUs(at_us)
            if amount.oldest_at_us is None and of.lowest >= 0:
                read += self._rows_of(connection, of.lowest)
                amount.oldest_at_us = self._oldest_in(connection, of)
            self._waiting.pop()
            of.waiting -= 1
            if not of.waiting:
                del self._unfinished[of]
            read += 64  # It costs something also where all is known.
        return read

    def _oldest_in(self, connection: sqlite3.Connection, of: _Set) -> WallUs | None:
        for _, topic_id, _, at_us in self._rows[of.lowest]:
            if of in self._sets_of(connection, topic_id):
                return WallUs(at_us)
        return None  # It was removed meanwhile.

    def _rows_of(self, connection: sqlite3.Connection, block: int) -> int:
        """Let `_rows` have the rows of this block. How many were read."""
        if block in self._rows:
            return 0
        if len(self._rows) >= ROWS_KEPT:
            del self._rows[next(iter(self._rows))]
        first, last = bounds(block)
        asked = max(first, self._start), min(last, self._end)
        self._rows[block] = rows = connection.execute(_ROWS, asked).fetchall()
        return len(rows) + 1 + self._learn(connection, [row[1] for row in rows])

    # Blocks

    def _add_up(self, connection: sqlite3.Connection, topics: Topics, lowest: int) -> int:
        """Add up the newest blocks that are not, at most down to `lowest`. How many rows of the
        index, or of messages, were looked at."""
        last = self._block
        if last == self._end >> BLOCK_SHIFT:  # More messages may have come into it since.
            self._block -= 1
            read = self._add_rows(connection, last)
            self._rows_per_block = max(1, len({row[1] for row in self._rows[last]}))
            return read
        first = max(lowest, last - self._step + 1)
        every = [of for of in self._unfinished if "#" in of.filters]
        if every and not self._all_counted(connection, topics, first):
            every = []
        wanted, sought = "", False
        if len(every) < len(self._unfinished):
            known = self._wanted(connection, every)
            if known is None:
                return ROWS_PER_PART // 10  # Which topics are wanted is looked up in parts.
            wanted, sought = known
        self._block = first - 1
        rows = 1
        if every:
            rows += self._add_all_topics(connection, first, last, every)
        if len(every) == len(self._unfinished):
            self._step = BLOCKS_PER_STEP_MAX
            return rows + (last - first + 1) // 4
        found = self._by_topic(connection, first, last, wanted, sought=sought)
        if any(row[5] for row in found):
            uncounted = {block for (block,) in connection.execute(_UNCOUNTED, (first, last))}
            for block in uncounted:
                rows += self._add_rows(connection, block, skipped=every)
            parts = _between(first, last, uncounted)
            by_topic = partial(self._by_topic, connection, wanted=wanted, sought=sought)
            found = [row for part in parts for row in by_topic(*part)]
        rows += self._learn(connection, [row[0] for row in found])
        for topic_id, messages, size, block, count, _ in found:
            rows += count
            for of in self._sets_of(connection, topic_id):
                if not every or of not in every:
                    of.add(messages, size, block)
        if not wanted:
            self._rows_per_block = rows / (last - first + 1)
        return max(rows, self._stepped(last - first + 1, sought=sought))

    def _add_all_topics(
        self, connection: sqlite3.Connection, first: int, last: int, every: Sequence[_Set]
    ) -> int:
        """By the figures over all topics; the rows of damaged blocks, which have none. How many
        rows were read."""
        messages, size, oldest = connection.execute(_ALL_TOPICS, (first, last)).fetchone()
        for of in every if messages else ():
            of.add(messages, size, oldest)
        uncounted = connection.execute(_UNCOUNTED_IN_ALL, (first, last)).fetchall()
        return sum([self._add_rows(connection, block, every) for (block,) in uncounted])

    def _by_topic(
        self, connection: sqlite3.Connection, first: int, last: int, wanted: str, *, sought: bool
    ) -> list[tuple[int, int, int, int, int, int]]:
        """The figures of these blocks by topic; of `wanted` topics only, if there are any."""
        if not wanted:
            return connection.execute(_BY_TOPIC, (first, last)).fetchall()
        return connection.execute(
            _SOUGHT if sought else _BY_WANTED, (first, last, wanted)
        ).fetchall()

    def _stepped(self, blocks: int, *, sought: bool) -> int:
        """Choose how many blocks are next. What these have cost, in rows."""
        rows_per_block = SEEK_ROWS * self._known[2] if sought else self._rows_per_block
        cost = 1 + int(blocks * rows_per_block)
        if cost < ROWS_PER_PART // 3:
            self._step = min(self._step * 2, BLOCKS_PER_STEP_MAX)
        elif cost > ROWS_PER_PART:
            self._step = max(1, self._step // 2)
        return cost

    def _add_rows(
        self,
        connection: sqlite3.Connection,
        block: int,
        only: Sequence[_Set] | None = None,
        skipped: Sequence[_Set] = (),
    ) -> int:
        """Count the rows of a block that has no figures."""
        read = self._rows_of(connection, block)
        for _, topic_id, size, _ in self._rows[block]:
            for of in self._sets_of(connection, topic_id):
                if of not in skipped and (only is None or of in only):
                    of.add(1, size, block)
        return read + 1

    def _all_counted(self, connection: sqlite3.Connection, topics: Topics, first: int) -> bool:
        """Whether all blocks from `first` on have figures over all topics, which `#` all wants."""
        (accounted_from,) = connection.execute("SELECT accounted_from FROM log").fetchone()
        return bool(first > accounted_from >> BLOCK_SHIFT and topics.every(["#"]))

    def _wanted(
        self, connection: sqlite3.Connection, every: Sequence[_Set]
    ) -> tuple[str, bool] | None:
        """The topics that are still wanted, as JSON, "" if they are many; and whether they are so
        few that they are sought. None: not known yet, ask again. `every`: these want all."""
        sets = [of for of in self._unfinished if of not in every]
        if len(sets) > SOUGHT_SETS_MAX:
            return "", False
        if self._known[0] != len(sets):
            topics: set[int] = set()
            for of in sets:
                if not of.search.done and len(of.topics) <= SOUGHT_TOPICS_MAX:
                    of.topics.update(of.search.part(connection))
                    return None
                topics |= of.topics
                if len(topics) > SOUGHT_TOPICS_MAX:
                    return "", False
            self._known = len(sets), json.dumps([*topics]), len(topics)
        sought = SEEK_ROWS * self._known[2] <= max(16, self._rows_per_block)
        return self._known[1], sought

    def _sets_of(self, connection: sqlite3.Connection, topic_id: int) -> Sequence[_Set]:
        """The sets of filters that match this topic, each once."""
        if topic_id not in self._matching:
            self._learn(connection, [topic_id])
        return self._matching[topic_id]

    def _learn(self, connection: sqlite3.Connection, topic_ids: Iterable[int]) -> int:
        """What these topics match. How many were not known."""
        unknown = {*topic_ids}.difference(self._matching)
        if unknown:
            rows = connection.execute(_NAMES, (json.dumps([*unknown]),))
            names = {topic_id: name for topic_id, name in rows if isinstance(name, str) and name}
            for topic_id in unknown:
                found = {*self._tree.match(names[topic_id])} if topic_id in names else ()
                self._matching.keep(topic_id, (*found,), len(found))
        return len(unknown)


def amount(connection: sqlite3.Connection, offsets: Sequence[int]) -> Amount:
    """As `Store.amount`."""
    _, messages, size, at_us = connection.execute(
        "SELECT min(offset), count(*), ifnull(sum(length(payload) + length(properties)), 0),"
        " published_at_us FROM json_each(?) CROSS JOIN messages ON offset = value",
        (json.dumps([*offsets]),),
    ).fetchone()  # Where there is a min(), SQLite takes other columns from its row.
    return Amount(messages, size, at_us)


def _between(first: int, last: int, left_out: set[int]) -> list[tuple[int, int]]:
    """The runs of blocks in first..last without these."""
    parts: list[tuple[int, int]] = []
    begin = first
    for block in (*sorted(left_out), last + 1):
        if block > begin:
            parts.append((begin, block - 1))
        begin = block + 1
    return parts
