"""Databases as the programs of earlier schemas left them."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from broker.message import Message
from broker.store.sqlite import figures
from broker.store.sqlite.files import schema
from broker.store.sqlite.rows import BLOCK_SHIFT, COLUMNS, checksum, seed, without_offset
from tests.support.messages import message

VERSIONS = range(1, len(schema.migrations()) + 1)
MESSAGES = 2500
CHECKSUMS_HAVE_OFFSETS = 4
"""Since this schema; and since then blocks have figures."""
PUBLISHERS_ARE_LISTED = 12


def make(path: Path, version: int) -> list[Message]:
    """A log of this schema, stopped cleanly: messages on some topics, one of them retained, and a
    durable session that has acknowledged the first 100. What its messages are."""
    written = [
        message(str(n), f"t/{n % 3}", publisher=f"p{n % 2}", retain=n == 2400, offset=n, at=n)
        for n in range(1, MESSAGES + 1)
    ]
    known = [migration for migration in schema.migrations() if migration.version <= version]
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        schema.migrate(connection, path, known)
        connection.execute("BEGIN")
        for number in range(3):
            connection.execute("INSERT INTO topics VALUES (?, ?)", (number + 1, f"t/{number}"))
        for number in range(2):
            connection.execute("INSERT INTO publishers VALUES (?, ?)", (number + 1, f"p{number}"))
        connection.executemany(
            f"INSERT INTO messages ({COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?)",
            [_row(sent, version) for sent in written],
        )
        connection.execute(
            "INSERT INTO topic_blocks (block, topic_id)"
            f" SELECT DISTINCT offset >> {BLOCK_SHIFT}, topic_id FROM messages"
        )
        if version >= CHECKSUMS_HAVE_OFFSETS:
            for block in range(MESSAGES >> BLOCK_SHIFT):
                figures.write_from_rows(connection, block)
        if version >= PUBLISHERS_ARE_LISTED:
            connection.execute(
                f"INSERT INTO publisher_blocks SELECT DISTINCT offset >> {BLOCK_SHIFT},"
                " publisher_id FROM messages"
                f" WHERE offset < {MESSAGES >> BLOCK_SHIFT << BLOCK_SHIFT}"
            )
        connection.execute(
            "INSERT INTO retained (topic_id, offset) SELECT topic_id, offset FROM messages"
            " WHERE retain = 1"
        )
        connection.execute(
            "INSERT INTO sessions"
            " (client_id, session_expiry_s, created_at_us, expires_at_us, revision)"
            " VALUES ('sub1', 86400, 1, 86400000000, 1)"
        )
        connection.execute(
            "INSERT INTO subscriptions (client_id, filter, qos, no_local, retain_as_published,"
            " retain_handling, start_offset, replaying, metadata, revision)"
            " VALUES ('sub1', 't/#', 1, 0, 0, 0, 0, 0, 0, 1)"
        )
        connection.execute("INSERT INTO cursors VALUES ('sub1', 100, 100, 1, x'', 1)")
        connection.execute(
            "INSERT INTO broker_runs (started_at_us, stopped_at_us, version) VALUES (1, 2, '0')"
        )
        connection.execute("COMMIT")
    return written


def _row(sent: Message, version: int) -> tuple[object, ...]:
    crc = checksum(
        seed(sent.topic, sent.publisher),
        *(sent.offset, sent.published_at_us, sent.qos, int(sent.retain), 0),
        *(sent.payload, sent.properties),
    )
    if version < CHECKSUMS_HAVE_OFFSETS:
        crc = without_offset(crc, sent.offset)
    topic_id, publisher_id = int(sent.topic[2:]) + 1, int(sent.publisher[1:]) + 1
    return (
        *(sent.offset, topic_id, publisher_id, sent.published_at_us, sent.qos, int(sent.retain), 0),
        *(sent.payload, sent.properties, crc),
    )
