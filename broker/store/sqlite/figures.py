"""What each block of 1024 offsets holds: `topic_blocks` by topic, `blocks` over all topics.

The writer writes the figures of a block once, when the block is full, from its rows (about 0.3 ms),
and subtracts from them when the log start moves into the block. They describe the messages of the
block from the log start on. Readers compare them with what they find.
"""

from __future__ import annotations

import sqlite3

from broker.store.sqlite.rows import BLOCK_SHIFT

_OF_MESSAGES = "count(*), sum(length(payload) + length(properties)), max(published_at_us), sum(crc)"
_OF_TOPICS = "sum(topic_id), sum(messages), sum(bytes), max(newest_at_us), sum(checksums)"


def write(connection: sqlite3.Connection, block: int) -> None:
    """Write the figures of a block that gets no more messages, in the open transaction.

    A block that is known to be damaged has a row in `blocks` already, and keeps it.
    """
    first, last = block << BLOCK_SHIFT, (block + 1 << BLOCK_SHIFT) - 1
    connection.execute(
        f"INSERT INTO topic_blocks SELECT ?1, topic_id, {_OF_MESSAGES} FROM messages"
        " WHERE offset BETWEEN max(?2, (SELECT start FROM log)) AND ?3 GROUP BY topic_id"
        " ON CONFLICT DO UPDATE SET messages = excluded.messages, bytes = excluded.bytes,"
        " newest_at_us = excluded.newest_at_us, checksums = excluded.checksums",
        (block, first, last),
    )
    connection.execute(
        f"INSERT OR IGNORE INTO blocks SELECT block, {_OF_TOPICS} FROM topic_blocks"
        " WHERE block = ? AND messages IS NOT NULL GROUP BY block",
        (block,),
    )


def distrust(connection: sqlite3.Connection, block: int) -> None:
    """The open block is damaged: figures from its rows would hide that, so it gets impossible ones.
    In the open transaction."""
    connection.execute("INSERT OR REPLACE INTO blocks VALUES (?, -1, -1, -1, -1, -1)", (block,))


def move_start(connection: sqlite3.Connection, before: int, start: int) -> None:
    """Take the messages of before..start - 1 out of the figures of the block of `start`.

    Older blocks lose their figures. In the transaction that moves the log start.
    """
    block = start >> BLOCK_SHIFT
    first = max(before, block << BLOCK_SHIFT)
    passed = connection.execute(
        f"SELECT topic_id, {_OF_MESSAGES} FROM messages"
        " WHERE offset >= ? AND offset < ? GROUP BY topic_id",
        (first, start),
    ).fetchall()
    connection.execute("DELETE FROM blocks WHERE block < ?", (block,))
    for topic_id, messages, size, _, checksums in passed:
        connection.execute(
            "UPDATE topic_blocks SET messages = messages - ?, bytes = bytes - ?,"
            " checksums = checksums - ? WHERE block = ? AND topic_id = ?",
            (messages, size, checksums, block, topic_id),
        )
        connection.execute(
            "UPDATE blocks SET messages = messages - ?, bytes = bytes - ?,"
            " checksums = checksums - ? WHERE block = ?",
            (messages, size, checksums, block),
        )
