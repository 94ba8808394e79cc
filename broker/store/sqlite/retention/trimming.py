"""Trimming: how the writer removes messages, in short transactions between its commits.

None of them is synced: messages that come back after a power cut are removed again. But the log
start is synced before `trim` removes anything: a reader hears of it, and then only misses them.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Sequence
from itertools import groupby
from time import perf_counter

from broker.message import Offset
from broker.store.removing import OVERHEAD_BYTES, Row
from broker.store.sqlite import figures, gaps
from broker.store.sqlite.retention import removed
from broker.store.sqlite.retention.held import HELD
from broker.store.sqlite.retention.unread import note
from broker.store.sqlite.rows import BLOCK_SHIFT
from broker.store.sqlite.writer import Writer

PASSED_AT_ONCE_MAX = 2000
"""Held messages that one step moves the log start over: 2 ms."""

_TAKE = f"""
SELECT m.offset, m.topic_id, length(m.payload) + length(m.properties), m.crc
FROM json_each(?) j CROSS JOIN messages m ON m.offset = j.value
WHERE NOT {HELD} ORDER BY m.offset
"""
_PASS = f"SELECT m.offset, {HELD} FROM messages m WHERE m.offset >= ? ORDER BY m.offset"
_TAKE_OUT = (
    " SET messages = messages - ?, bytes = bytes - ?, checksums = checksums - ? WHERE block = ?"
)
_UNUSED_TOPICS = """
DELETE FROM topics WHERE id IN (SELECT value FROM json_each(?1))
AND id < (SELECT max(id) FROM topics)
AND NOT EXISTS (SELECT 1 FROM retained WHERE topic_id = id)
AND id NOT IN (SELECT topic_id FROM topic_blocks WHERE block >= ?2)
"""
_UNUSED_PUBLISHERS = """
DELETE FROM publishers WHERE id IN (SELECT value FROM json_each(?1))
AND id < (SELECT max(id) FROM publishers)
AND id NOT IN (SELECT publisher_id FROM publisher_blocks WHERE block >= ?2)
AND id NOT IN (SELECT publisher_id FROM messages WHERE offset >= ?3 << 10)
"""


class Trimming:
    def __init__(self, writer: Writer) -> None:
        """Each call is made in the writer's thread, and raises as `Writer.transaction`."""
        self._writer = writer

    def take_out(
        self, offsets: Sequence[int], unread: Collection[int]
    ) -> tuple[list[Row], list[Offset], float]:
        """Remove these messages of one block, but for those that are held by now. What went, which
        of that was unread, and how many seconds that took."""
        began = perf_counter()
        writer = self._writer
        connection = writer.connection
        block = offsets[0] >> BLOCK_SHIFT
        with writer.transaction(synced=False):
            rows = connection.execute(_TAKE, (json.dumps([*offsets]),)).fetchall()
            gone = [row[0] for row in rows]
            connection.execute(
                "DELETE FROM messages WHERE offset IN (SELECT value FROM json_each(?))",
                (json.dumps(gone),),
            )
            if block == writer.open_block.block:
                writer.open_block.not_whole()
            _subtract(connection, block, rows)
            if block < writer.high_watermark >> BLOCK_SHIFT:
                _forget_if_empty(connection, block)
            removed.add(connection, block, gone)
            told = [row[:2] for row in rows if row[0] in unread]
            note(connection, block, told)
        writer.message_count -= len(gone)
        size = sum([size for _, _, size, _ in rows])
        writer.pages += 6 + (size + OVERHEAD_BYTES * len(rows)) // 4096
        taken = [Row(Offset(row[0]), row[1], row[2] + OVERHEAD_BYTES, False) for row in rows]
        return taken, [Offset(offset) for offset, _ in told], perf_counter() - began

    def trim_some(self, before: int, position: int) -> tuple[int, int]:
        """Remove the messages of one block in [position, before) that are not held: 3 ms.

        Returns the number removed and the position to go on from. `before` is at or below the log
        start, so the index of the blocks below it is removed, too.
        """
        writer = self._writer
        connection = writer.connection
        row = connection.execute(
            "SELECT min(offset) FROM messages WHERE offset >= ?", (position,)
        ).fetchone()
        if row[0] is None or row[0] >= before:
            return 0, before
        end = min(before, ((row[0] >> BLOCK_SHIFT) + 1) << BLOCK_SHIFT)
        with writer.transaction(synced=False):
            gone = connection.execute(
                "DELETE FROM messages WHERE offset IN (SELECT m.offset FROM messages m"
                f" WHERE m.offset >= ? AND m.offset < ? AND NOT {HELD})",
                (row[0], end),
            ).rowcount
            _forget_index(connection, end >> BLOCK_SHIFT)
        writer.pages += 4 + gone // 16
        return gone, end

    def move_log_start(self, start: int, *, missing: bool = True) -> None:
        """`missing`: what lies below may be unread."""
        writer = self._writer
        connection = writer.connection
        with writer.transaction(synced=missing):
            figures.move_start(connection, writer.log_start, start)
            connection.execute("UPDATE log SET start = ?", (start,))
            if missing:
                connection.execute("UPDATE log SET missing_before = ?", (start,))
            gaps.forget(connection, start)
            connection.execute("DELETE FROM removed WHERE block < ?", (start >> BLOCK_SHIFT,))
            if start >> BLOCK_SHIFT == writer.open_block.block:
                writer.open_block.not_whole()
        writer.log_start = Offset(start)
        if missing:
            writer.missing_before = Offset(start)
        writer.message_count = gaps.count_messages(
            connection, writer.log_start, writer.high_watermark
        )

    def advance_some(self) -> bool:
        """Move the log start over what is gone and what is only held. Whether there may be more."""
        writer = self._writer
        rows = writer.connection.execute(_PASS, (writer.log_start,))
        start, passed = writer.high_watermark + 1, 0
        for offset, held in rows:
            if not held or passed == PASSED_AT_ONCE_MAX:
                start = offset
                break
            passed += 1
        rows.close()
        if start > writer.log_start:
            self.move_log_start(start, missing=False)
            with writer.transaction(synced=False):
                _forget_index(writer.connection, start >> BLOCK_SHIFT)
        return passed == PASSED_AT_ONCE_MAX

    def forget_unread(self, before: int) -> bool:
        """Whether there is more."""
        connection = self._writer.connection
        with self._writer.transaction(synced=False):
            connection.execute(
                "DELETE FROM removed_unread WHERE block < ?", (before >> BLOCK_SHIFT,)
            )
        return connection.execute("SELECT 1 FROM removed_unread LIMIT 1").fetchone() is not None

    def forget_names(self, topics: Sequence[int], publishers: Sequence[int], since: int) -> int:
        """These had no message in any block before `since`: remove those that have none now."""
        writer = self._writer
        with writer.transaction(synced=False):
            connection = writer.connection
            block = writer.high_watermark >> BLOCK_SHIFT
            gone = connection.execute(_UNUSED_TOPICS, (json.dumps([*topics]), since)).rowcount
            listed = json.dumps([*publishers])
            gone += connection.execute(_UNUSED_PUBLISHERS, (listed, since, block)).rowcount
        writer.forget_names()
        return gone


def _subtract(connection: sqlite3.Connection, block: int, rows: Sequence[Sequence[int]]) -> None:
    """Take the rows out of the figures of their block, if it has any."""
    by_topic = sorted(rows, key=lambda row: row[1])
    for topic_id, group in groupby(by_topic, key=lambda row: row[1]):
        counted = [(size, checksum) for _, _, size, checksum in group]
        amount = len(counted), sum(s for s, _ in counted), sum(c for _, c in counted)
        connection.execute(
            f"UPDATE topic_blocks{_TAKE_OUT} AND topic_id = ?", (*amount, block, topic_id)
        )
    sizes, checksums = sum(row[2] for row in rows), sum(row[3] for row in rows)
    connection.execute(f"UPDATE blocks{_TAKE_OUT}", (len(rows), sizes, checksums, block))
    emptied = connection.execute(
        "DELETE FROM topic_blocks WHERE block = ? AND messages = 0 RETURNING topic_id", (block,)
    ).fetchall()
    connection.execute(
        "UPDATE blocks SET topic_ids = topic_ids - ? WHERE block = ?",
        (sum(topic_id for (topic_id,) in emptied), block),
    )
    connection.execute("DELETE FROM blocks WHERE block = ? AND messages = 0", (block,))


def _forget_if_empty(connection: sqlite3.Connection, block: int) -> None:
    """A block without figures, which an older program wrote, has an index all the same."""
    connection.execute(
        "DELETE FROM topic_blocks WHERE block = ?1 AND NOT EXISTS ("
        "SELECT 1 FROM messages WHERE offset >= ?1 << 10 AND offset < (?1 + 1) << 10)",
        (block,),
    )


def _forget_index(connection: sqlite3.Connection, block: int) -> None:
    """Of the blocks before this one."""
    connection.execute("DELETE FROM topic_blocks WHERE block < ?", (block,))
    connection.execute("DELETE FROM publisher_blocks WHERE block < ?", (block,))
