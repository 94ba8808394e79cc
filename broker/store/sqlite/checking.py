"""The checks of `pubsub check` on the database. They read everything and change nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import Any

from broker.errors import StoreCorrupt
from broker.message import Offset
from broker.store.sqlite import figures
from broker.store.sqlite.reader import Reader
from broker.store.sqlite.rows import BLOCK_SHIFT, COLUMNS

PROBLEMS_MAX = 100
"""Sentences in one report; more would say nothing new."""

_QUESTIONS = {
    "the retained message of topic {} is not there (offset {})": (
        "SELECT topic_id, offset FROM retained WHERE offset NOT IN (SELECT offset FROM messages)"
    ),
    "the retained message at offset {} is of topic {}, not {}": (
        "SELECT offset, m.topic_id, r.topic_id FROM retained r JOIN messages m USING (offset)"
        " WHERE m.topic_id <> r.topic_id"
    ),
    "the retained message at offset {} is not found by its name ({})": (
        "SELECT offset, t.name FROM retained JOIN topics t ON t.id = topic_id"
        " WHERE NOT EXISTS (SELECT 1 FROM retained_names n"
        " WHERE n.name = t.name AND n.topic_id = t.id)"
    ),
    "the message at offset {} is not indexed (topic {})": (
        "SELECT offset, topic_id FROM messages m WHERE offset >= (SELECT start FROM log)"
        " AND NOT EXISTS (SELECT 1 FROM topic_blocks t"
        f" WHERE t.block = m.offset >> {BLOCK_SHIFT} AND t.topic_id = m.topic_id)"
    ),
    "the figures of block {} do not add up": (
        "SELECT block FROM blocks b WHERE (topic_ids, messages, bytes, checksums) IS NOT ("
        " SELECT sum(topic_id), sum(messages), sum(bytes), sum(checksums) FROM topic_blocks t"
        " WHERE t.block = b.block AND messages IS NOT NULL)"
    ),
    "the messages at the offsets {} to {} are gone": (
        "SELECT last + 1, offset - 1 FROM ("
        " SELECT offset, lag(offset) OVER (ORDER BY offset) AS last FROM messages"
        " WHERE offset >= (SELECT max(start, accounted_from) FROM log)"
        ") WHERE offset > last + 1"
        " AND NOT EXISTS (SELECT 1 FROM gaps g WHERE g.first <= last + 1 AND g.last >= offset - 1)"
    ),
    "the cursor of {} ({}) is above the high watermark ({})": (
        "SELECT client_id, offset, high FROM cursors, (SELECT max("
        " (SELECT ifnull(max(offset), 0) FROM messages), (SELECT start - 1 FROM log)) AS high)"
        " WHERE offset > high OR sent_through > high"
    ),
}


def check(
    connection: sqlite3.Connection, progress: Callable[[Offset], None] | None = None
) -> list[str]:
    problems: list[str] = []
    for look in (_structure, _references, _figures, partial(_damaged, progress=progress)):
        try:
            problems += islice(look(connection), PROBLEMS_MAX - len(problems))
        except sqlite3.DatabaseError as error:  # Too damaged to go on.
            problems.append(f"the database file: {error}")
    return problems


def _structure(connection: sqlite3.Connection) -> Iterator[str]:
    for (line,) in connection.execute(f"PRAGMA integrity_check({PROBLEMS_MAX})"):
        if line != "ok":
            yield f"the database file: {line}"


def _references(connection: sqlite3.Connection) -> Iterator[str]:
    for table, _, parent, _ in connection.execute("PRAGMA foreign_key_check"):
        yield f"a row of {table} refers to nothing in {parent}"
    for sentence, sql in _QUESTIONS.items():
        for row in connection.execute(sql):
            yield sentence.format(*row)


def _figures(connection: sqlite3.Connection) -> Iterator[str]:
    """The figures of each topic in each block, beside its messages."""
    for (block,) in connection.execute("SELECT block FROM blocks").fetchall():
        for topic_id in figures.disagreeing(connection, block):
            yield f"the figures of topic {topic_id} in block {block} do not add up"


def _damaged(
    connection: sqlite3.Connection, progress: Callable[[Offset], None] | None
) -> Iterator[str]:
    """The messages whose checksum is wrong, retained ones below the log start included."""
    reader = Reader(connection)
    position = Offset(0)
    while rows := connection.execute(
        f"SELECT {COLUMNS} FROM messages WHERE offset >= ? ORDER BY offset LIMIT 1000", (position,)
    ).fetchall():
        try:
            reader.messages(rows)
        except StoreCorrupt:
            yield from _damaged_rows(reader, rows)
        position = Offset(rows[-1][0] + 1)
        if progress is not None:
            progress(position)


def _damaged_rows(reader: Reader, rows: list[Any]) -> Iterator[str]:
    for row in rows:
        try:
            reader.messages([row])
        except StoreCorrupt as error:
            yield str(error)
