"""Removable: looks at the log for retention, in the thread of a read-only connection.

Each is short: a snapshot that is held for long keeps the write-ahead log from starting over. What
is damaged is found here and not by the writer, which would stop the broker for it.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Collection, Iterator
from contextlib import closing
from itertools import groupby
from operator import itemgetter

from broker.errors import StoreCorrupt
from broker.message import Offset
from broker.store.removing import (
    OVERHEAD_BYTES,
    ROWS_AT_ONCE,
    SEGMENT,
    Amount,
    ByTopic,
    Order,
    Owed,
    Picked,
    Row,
    Segment,
    pick,
)
from broker.store.sqlite.accounts import bounds
from broker.store.sqlite.retention import removed
from broker.store.sqlite.retention.held import HELD
from broker.store.sqlite.rows import BLOCK_SHIFT
from broker.topics import is_shared

COUNTED_MAX = 8
"""Blocks without figures whose rows are counted in one look."""
SUMMED_MAX = 32
"""Blocks whose figures SQLite adds up in one look, without the interpreter: 10 ms."""
SUBSCRIPTIONS_AT_ONCE = 2000
NAMES_AT_ONCE = 5000

_FIGURES = """
SELECT block, topic_id, messages, bytes, newest_at_us FROM topic_blocks
WHERE block >= ? ORDER BY block, topic_id LIMIT ?
"""
_SUMS = """
SELECT topic_id, sum(messages), sum(bytes), count(*) - count(messages) FROM topic_blocks
WHERE block BETWEEN ? AND ? GROUP BY topic_id
"""
_COUNT = """
SELECT topic_id, count(*), sum(length(payload) + length(properties)), max(published_at_us)
FROM messages WHERE offset BETWEEN max(?, (SELECT start FROM log)) AND ? GROUP BY topic_id
"""
_ROWS = f"""
SELECT m.offset, m.topic_id, length(m.payload) + length(m.properties) + {OVERHEAD_BYTES}, {HELD}
FROM messages m WHERE m.offset BETWEEN max(?, (SELECT start FROM log)) AND ? ORDER BY m.offset
"""
_OWED = """
SELECT s.client_id, s.filter, ifnull(length(c.inflight), 0) > 0,
    CASE WHEN s.replaying THEN s.start_offset
    ELSE max(s.start_offset, ifnull(c.offset, 0)) END
FROM subscriptions s LEFT JOIN cursors c USING (client_id)
WHERE (s.client_id, s.filter) > (?, ?) ORDER BY s.client_id, s.filter LIMIT ?
"""


def segments(connection: sqlite3.Connection, start: int) -> tuple[list[Segment], Offset | None]:
    """The next segments, and where to go on; None: there are no more."""
    most = ROWS_AT_ONCE + SEGMENT
    rows = connection.execute(_FIGURES, (start >> BLOCK_SHIFT, most)).fetchall()
    found: list[Segment] = []
    counted = 0
    blocks = [(block, [*group]) for block, group in groupby(rows, itemgetter(0))]
    goes_on = len(rows) == most
    if goes_on:
        blocks.pop()  # There may be more of it.
    for block, figures in blocks:
        first, last = bounds(block)
        topics = {topic_id: (count, size) for _, topic_id, count, size, _ in figures}
        newest = max([at or 0 for *_, at in figures])
        if any(count is None for count, _ in topics.values()):
            if counted == COUNTED_MAX:
                return found, Offset(first)
            counted += 1
            here = connection.execute(_COUNT, (first, last)).fetchall()
            topics = {topic_id: (count, size) for topic_id, count, size, _ in here}
            newest = max([at for *_, at in here], default=0)
        amounts = {
            topic_id: Amount(count, size + OVERHEAD_BYTES * count)
            for topic_id, (count, size) in topics.items()
            if count > 0
        }
        if amounts:
            found.append(Segment(Offset(first), Offset(last), amounts, newest))
    return found, Offset(bounds(blocks[-1][0])[1] + 1) if goes_on else None


def counted(connection: sqlite3.Connection, start: int, end: int) -> tuple[ByTopic, Offset]:
    """As `Removing.counted`."""
    (block,) = connection.execute(
        "SELECT min(block) FROM topic_blocks WHERE block >= ?", (start >> BLOCK_SHIFT,)
    ).fetchone()
    stop = end >> BLOCK_SHIFT
    if block is None or block >= stop:
        return {}, Offset(end)
    stop = min(stop, block + SUMMED_MAX)
    rows = connection.execute(_SUMS, (block, stop - 1)).fetchall()
    if any(unknown for *_, unknown in rows):
        stop = min(stop, block + COUNTED_MAX)
        last = bounds(stop - 1)[1]
        rows = connection.execute(_COUNT, (bounds(block)[0], last)).fetchall()
    amounts = {
        topic_id: Amount(count, size + OVERHEAD_BYTES * count)
        for topic_id, count, size, _ in rows
        if count > 0
    }
    return amounts, Offset(stop << BLOCK_SHIFT)


def choose(connection: sqlite3.Connection, order: Order, rows_max: int, bytes_max: int) -> Picked:
    """What the next part of the order takes. Raises StoreCorrupt: the block does not add up."""
    block = order.first >> BLOCK_SHIFT
    connection.execute("BEGIN")
    try:
        counted = {
            topic_id: count
            for topic_id, count, *_ in connection.execute(_COUNT, (order.first, order.last))
        }
        figures = connection.execute(
            "SELECT topic_id, messages FROM topic_blocks WHERE block = ?", (block,)
        ).fetchall()
        distrusted = connection.execute(
            "SELECT 1 FROM blocks WHERE block = ? AND messages < 0", (block,)
        ).fetchone()
        whole = order.last >= bounds(block)[1]
        wrong = [t for t, n in figures if whole and n not in (None, counted.get(t, 0))]
        unknown = counted.keys() - {topic_id for topic_id, _ in figures}
        if distrusted or unknown or wrong:
            raise StoreCorrupt(f"the messages {order.first} to {order.last} do not add up")
        with closing(connection.execute(_ROWS, (order.first, order.last))) as found:
            # No more rows are read than are taken: Python's part keeps the loop waiting.
            rows = (Row(Offset(at), topic, size, bool(held)) for at, topic, size, held in found)
            return pick(rows, order, rows_max, bytes_max)
    finally:
        connection.execute("COMMIT")


def free_bytes(connection: sqlite3.Connection) -> int:
    """Of pages that hold nothing, without what the file has still to grow by: pages that are in the
    write-ahead log alone. Below 0, if that is more."""
    size, free, path = connection.execute(
        "SELECT page_count * page_size, freelist_count * page_size, file FROM pragma_page_count,"
        " pragma_page_size, pragma_freelist_count, pragma_database_list WHERE name = 'main'"
    ).fetchone()
    return int(free - max(0, size - os.stat(path).st_size))


def topic_names(connection: sqlite3.Connection, topic_ids: Collection[int]) -> dict[int, str]:
    rows = connection.execute(
        "SELECT id, name FROM topics WHERE id IN (SELECT value FROM json_each(?))",
        (json.dumps([*topic_ids]),),
    )
    return {number: name for number, name in rows if isinstance(name, str)}


def owed(
    connection: sqlite3.Connection, after: tuple[str, str]
) -> tuple[list[Owed], tuple[str, str] | None]:
    """As `Removing.owed`."""
    rows = connection.execute(_OWED, (*after, SUBSCRIPTIONS_AT_ONCE)).fetchall()
    found = [
        Owed(client_id, filter, Offset(through + 1), bool(lists))
        for client_id, filter, lists, through in rows
        if not is_shared(filter)
    ]
    return found, rows[-1][:2] if len(rows) == SUBSCRIPTIONS_AT_ONCE else None


class NamesInUse:
    """Which topics and publishers have no message: a walk in parts over the index.

    What is new since the walk began is looked at by whoever removes names.
    """

    def __init__(self) -> None:
        self.since = 0
        """The block from which on nothing was looked at."""
        self._used: dict[str, set[int]] = {"topics": set(), "publishers": set()}
        self._parts: Iterator[None] | None = None

    def part(self, connection: sqlite3.Connection) -> bool:
        """Look at the next part. Whether there are more."""
        if self._parts is None:
            self._parts = self._walk(connection)
        return next(self._parts, False) is not False

    def unused(
        self, connection: sqlite3.Connection, table: str, after: int
    ) -> tuple[list[int], int | None]:
        """Numbers of the next names behind `after` that nothing uses, and where to go on."""
        if table == "publishers":
            row = connection.execute("SELECT publishers_from <= start >> 10 FROM log").fetchone()
            if not row[0]:
                return [], None
        rows = connection.execute(
            f"SELECT id FROM {table} WHERE id > ? ORDER BY id LIMIT ?", (after, NAMES_AT_ONCE)
        ).fetchall()
        unused = [number for (number,) in rows if number not in self._used[table]]
        return unused, rows[-1][0] if len(rows) == NAMES_AT_ONCE else None

    def _walk(self, connection: sqlite3.Connection) -> Iterator[None]:
        self.since = connection.execute(
            f"SELECT max(ifnull(max(offset), 0), {removed.NEWEST}) >> 10 FROM messages"
        ).fetchone()[0]
        for table, column, names in (
            ("topic_blocks", "topic_id", "topics"),
            ("removed_unread", "topic_id", "topics"),
            ("publisher_blocks", "publisher_id", "publishers"),
        ):
            block: int | None = 0
            while block is not None:
                (block,) = connection.execute(
                    f"SELECT min(block) FROM {table} WHERE block >= ?", (block,)
                ).fetchone()
                if block is not None:
                    rows = connection.execute(
                        f"SELECT DISTINCT {column} FROM {table} WHERE block >= ? AND block < ?",
                        (block, block + SUMMED_MAX),
                    ).fetchall()
                    self._used[names].update([number for (number,) in rows])
                    block += SUMMED_MAX
                yield
        offset: int | None = 0
        while offset is not None:
            rows = connection.execute(
                "SELECT offset, topic_id, publisher_id FROM messages WHERE offset > ?"
                " AND offset < (SELECT start FROM log) ORDER BY offset LIMIT ?",
                (offset, ROWS_AT_ONCE // 4),
            ).fetchall()
            self._used["topics"].update([topic_id for _, topic_id, _ in rows])
            self._used["publishers"].update([publisher_id for *_, publisher_id in rows])
            offset = rows[-1][0] if len(rows) == ROWS_AT_ONCE // 4 else None
            yield
