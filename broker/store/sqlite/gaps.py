"""Offsets that no message has and none will get (S2), and how many messages the others are."""

from __future__ import annotations

import logging
import sqlite3

from broker.message import Offset
from broker.store.sqlite import removed

OFFSETS_LOST_MAX = 1 << 20
"""Offsets left unused after an unclean stop: more than can have been given out since the
last fsync."""

logger = logging.getLogger(__name__)


def leave(connection: sqlite3.Connection, noted: Offset) -> range:
    """Give out none of the next OFFSETS_LOST_MAX offsets, nor one up to `noted`, nor one that was
    reserved (`offsets.py`). Returns them.

    Two gaps without a message between them become one.
    """
    newest, reserved, left_out = connection.execute(
        f"SELECT (SELECT max(ifnull(max(offset), 0), (SELECT start - 1 FROM log), {removed.NEWEST})"
        " FROM messages),"
        " (SELECT ifnull(max(seq), 0) FROM sqlite_sequence WHERE name = 'messages'),"
        " (SELECT ifnull(max(last), 0) FROM gaps)"
    ).fetchone()
    last = max(newest, reserved, left_out, noted) + OFFSETS_LOST_MAX
    if left_out > newest:
        connection.execute("UPDATE gaps SET last = ? WHERE last = ?", (last, left_out))
    else:
        connection.execute("INSERT INTO gaps VALUES (?, ?)", (newest + 1, last))
    connection.execute("DELETE FROM sqlite_sequence WHERE name = 'messages'")
    connection.execute("INSERT INTO sqlite_sequence VALUES ('messages', ?)", (last,))
    return range(max(newest, left_out) + 1, last + 1)


def leave_after_crash(connection: sqlite3.Connection, noted: Offset) -> None:
    """As `leave`, and tell the operator. (P2)"""
    left_out = leave(connection, noted)
    logger.info(
        "offsets %d..%d are left out, as the broker was not stopped cleanly: none is given twice",
        *(left_out.start, left_out[-1]),
    )


def close(connection: sqlite3.Connection, newest: Offset) -> None:
    """Leave none: the next offset is the one after the newest."""
    connection.execute("DELETE FROM gaps WHERE first > ?", (newest,))
    connection.execute("DELETE FROM sqlite_sequence WHERE name = 'messages'")
    connection.execute("INSERT INTO sqlite_sequence VALUES ('messages', ?)", (newest,))


def forget(connection: sqlite3.Connection, before: int) -> None:
    """Delete the gaps that end before the log start."""
    connection.execute("DELETE FROM gaps WHERE last < ?", (before,))


def count_messages(connection: sqlite3.Connection, first: int, last: int) -> int:
    """How many messages first..last hold, from the log start on."""
    (unused,) = connection.execute(
        "SELECT ifnull(sum(min(last, ?2) - max(first, ?1) + 1), 0) FROM gaps"
        " WHERE last >= ?1 AND first <= ?2",
        (first, last),
    ).fetchone()
    return int(last - first + 1 - unused) - removed.count(connection, first, last)
