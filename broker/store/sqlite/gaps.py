"""Offsets that no message has and none will get (S2), and how many messages the others are."""

from __future__ import annotations

import logging
import sqlite3

from broker.message import Offset
from broker.store.sqlite.retention import removed

OFFSETS_LOST_MAX = 1 << 20
"""Offsets left unused after an unclean stop: more than can have been given out since the
last fsync."""

BACKUP = "backup of "
"""Before the version of the newest run, in a backup."""

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


def leave_at_start(connection: sqlite3.Connection, noted: Offset) -> None:
    """As `leave`, where the last run does not say which offset was its last, or says one below
    `noted`; and tell the operator why. (P2)"""
    stopped_at_us, version = connection.execute(
        "SELECT stopped_at_us, version FROM broker_runs ORDER BY id DESC LIMIT 1"
    ).fetchone() or (0, "")
    left_out = leave(connection, noted)
    logger.info(
        "offsets %d..%d are left out, as %s: none is given twice",
        *(left_out.start, left_out[-1]),
        "the log is a backup, and the original may have gone on"
        if version.startswith(BACKUP)
        else "the broker was not stopped cleanly"
        if stopped_at_us is None
        else f"offset {noted} had been given out",
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
