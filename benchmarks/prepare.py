"""Data directories with much in them, written straight into the store's own tables.

Publishing ten million messages takes minutes, writing the rows that they leave behind takes a
quarter of a minute. What is written is what the broker would have: checksums, the sparse index and
the sequence included, and `SqliteStore.check` finds no fault with it (a test asks it). The broker
must not run meanwhile; a crash leaves a broken database.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from broker.config import DATABASE
from broker.store.sqlite import figures
from broker.store.sqlite.rows import BLOCK_SHIFT, COLUMNS, checksum, seed, without_offset
from broker.store.sqlite.store import SqliteStore

PUBLISHER = "filler"
TOPICS = tuple(f"filler/{number}" for number in range(20))
RARE_TOPIC = "rare"
RARE_EVERY = 50_000
"""Rows of one statement; the first is of the rare topic. They have one time of publishing."""
SESSION_EXPIRY_S = 30 * 86_400
US = 1_000_000


def database(directory: Path) -> Path:
    """Of a broker whose data directory is `directory / "data"`, made if it is not there."""
    path = directory / "data" / DATABASE
    if not path.exists():
        path.parent.mkdir(parents=True)
        asyncio.run(_open_once(SqliteStore(path)))
    return path


async def _open_once(store: SqliteStore) -> None:
    await store.open()
    await store.close()


@contextmanager
def _connected(path: Path) -> Iterator[sqlite3.Connection]:
    """Fast, since there is nothing to lose: no journal and no fsync."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = OFF")
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA cache_size = -200000")
        yield connection
        connection.execute("PRAGMA journal_mode = WAL")


def newest_offset(path: Path) -> int:
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        (offset,) = connection.execute("SELECT ifnull(max(offset), 0) FROM messages").fetchone()
    return int(offset)


def add_messages(path: Path, count: int, payload: bytes, topics: Sequence[str] = TOPICS) -> None:
    """`count` messages more, round the topics and the rare one, a second for each RARE_EVERY."""
    first = newest_offset(path) + 1
    last = first + count - 1
    with _connected(path) as connection:
        topic_ids = dict(_ids(connection, "topics", "name", (*topics, RARE_TOPIC)))
        ((_, publisher_id),) = _ids(connection, "publishers", "client_id", (PUBLISHER,))
        connection.execute("CREATE TEMP TABLE turn (i INTEGER PRIMARY KEY, topic_id, crc)")
        statements = -(-count // RARE_EVERY)
        start_us = time.time_ns() // 1000 - statements * US
        for n, begin in enumerate(range(first, last + 1, RARE_EVERY)):
            at_us = start_us + n * US
            end = min(last, begin + RARE_EVERY - 1)
            rare = _checksum(RARE_TOPIC, at_us, payload)
            connection.execute(
                f"INSERT INTO messages ({COLUMNS}) VALUES (?, ?, ?, ?, 1, 0, 0, ?, x'', ?)",
                (begin, topic_ids[RARE_TOPIC], publisher_id, at_us, payload, rare),
            )
            connection.execute("DELETE FROM turn")
            connection.executemany(
                "INSERT INTO turn VALUES (?, ?, ?)",
                (
                    (i, topic_ids[topic], _checksum(topic, at_us, payload))
                    for i, topic in enumerate(topics)
                ),
            )
            connection.execute(
                "WITH RECURSIVE n (at) AS"
                " (SELECT ?1 WHERE ?1 <= ?2 UNION ALL SELECT at + 1 FROM n WHERE at < ?2)"
                f" INSERT INTO messages ({COLUMNS})"
                " SELECT at, topic_id, ?3, ?4, 1, 0, 0, ?5, x'', crc"
                " FROM n CROSS JOIN turn ON i = at % ?6",
                (begin + 1, end, publisher_id, at_us, payload, len(topics)),
            )
        _index(connection, first, last)
    # Or the system writes it back while the broker is measured.
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _checksum(topic: str, at_us: int, payload: bytes) -> int:
    """Without the offset, as SQLite numbers the rows: by the rule of programs before schema 4."""
    return without_offset(checksum(seed(topic, PUBLISHER), 0, at_us, 1, 0, 0, payload, b""), 0)


def _index(connection: sqlite3.Connection, first: int, last: int) -> None:
    """The rows of `topic_blocks` and `publisher_blocks` for what was added, and figures of full
    blocks."""
    for block in range(first >> BLOCK_SHIFT, (last >> BLOCK_SHIFT) + 1):
        begin = max(first, block << BLOCK_SHIFT)
        end = min(last, (block + 1 << BLOCK_SHIFT) - 1)
        connection.execute(
            "INSERT OR IGNORE INTO topic_blocks (block, topic_id)"
            " SELECT DISTINCT ?, topic_id FROM messages WHERE offset BETWEEN ? AND ?",
            (block, begin, end),
        )
        connection.execute(
            "INSERT OR IGNORE INTO publisher_blocks (block, publisher_id)"
            " SELECT DISTINCT ?, publisher_id FROM messages WHERE offset BETWEEN ? AND ?",
            (block, begin, end),
        )
        if block < last >> BLOCK_SHIFT:
            figures.write_from_rows(connection, block)


def add_topics(path: Path, names: Iterable[str]) -> None:
    """So that messages to them find their topic known, as on a broker that is long in use."""
    with _connected(path) as connection:
        connection.execute("BEGIN")
        connection.executemany(
            "INSERT OR IGNORE INTO topics (name) VALUES (?)", ((name,) for name in names)
        )
        connection.execute("COMMIT")


def add_sessions(path: Path, client_ids: Iterable[str]) -> None:
    """Durable sessions whose clients are away, each with one subscription, to `away/<client>`."""
    now_us = time.time_ns() // 1000
    expires_at_us = now_us + SESSION_EXPIRY_S * US
    offset = newest_offset(path)
    with _connected(path) as connection:
        connection.execute("BEGIN")
        for client_id in client_ids:
            connection.execute(
                "INSERT INTO sessions (client_id, session_expiry_s, created_at_us, expires_at_us,"
                " revision) VALUES (?, ?, ?, ?, 1)",
                (client_id, SESSION_EXPIRY_S, now_us, expires_at_us),
            )
            connection.execute(
                "INSERT INTO subscriptions (client_id, filter, qos, no_local, retain_as_published,"
                " retain_handling, start_offset, replaying, metadata, revision)"
                " VALUES (?, ?, 1, 0, 0, 0, ?, 0, 0, 1)",
                (client_id, f"away/{client_id}", offset),
            )
            connection.execute(
                "INSERT INTO cursors VALUES (?, ?, ?, 1, x'', 1)", (client_id, offset, offset)
            )
        connection.execute("COMMIT")


def _ids(
    connection: sqlite3.Connection, table: str, column: str, names: Iterable[str]
) -> list[tuple[str, int]]:
    """Identifiers of interned names, which are added if they are not there."""
    found = []
    for name in names:
        connection.execute(f"INSERT OR IGNORE INTO {table} ({column}) VALUES (?)", (name,))
        (id,) = connection.execute(f"SELECT id FROM {table} WHERE {column} = ?", (name,)).fetchone()
        found.append((name, int(id)))
    return found
