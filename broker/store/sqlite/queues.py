"""Groups of workers and their dead letters, as the tables have them: for those who look at them,
while a broker runs or at rest.

A group is its name and its filter together, `$share/<name>/<filter>`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any

from broker.documents.queues import ATTEMPTS_MAX, BACKOFF_FIRST_MS, BACKOFF_MAX_MS, LEASE_MS
from broker.store.sqlite.reader import Reader
from broker.topics import SHARE_PREFIX, parse_shared

UNREAD_MAX = 1_000_000
"""Messages that are counted as unread; beyond, there are more."""
Record = dict[str, Any]

_AFTER_GROUPS = f"{SHARE_PREFIX[:-1]}0"
"""Names of groups lie between the prefix and this."""
_GROUPS = f"""
SELECT s.client_id, g.client_id IS NOT NULL, ifnull(g.attempts_max, {ATTEMPTS_MAX}),
    ifnull(g.backoff_first_ms, {BACKOFF_FIRST_MS}),
    ifnull(g.backoff_max_ms, {BACKOFF_MAX_MS}), ifnull(g.lease_ms, {LEASE_MS}),
    ifnull(c.offset, 0),
    iif(o.broker IS NULL, 0,
        (SELECT count(*) FROM subscriptions f INDEXED BY subscriptions_shared
            JOIN sessions m ON m.client_id = f.client_id
            WHERE f.filter = s.client_id
            AND f.filter >= '{SHARE_PREFIX}' AND f.filter < '{_AFTER_GROUPS}'
            AND m.expires_at_us IS NULL)),
    (SELECT count(*) FROM retries r WHERE r.client_id = s.client_id),
    (SELECT count(*) FROM dead_letters d WHERE d.group_name = s.client_id), o.broker
FROM sessions s LEFT JOIN group_settings g USING (client_id) LEFT JOIN cursors c USING (client_id)
    LEFT JOIN owners o USING (client_id)
WHERE s.client_id >= '{SHARE_PREFIX}' AND s.client_id < '{_AFTER_GROUPS}' ORDER BY s.client_id
"""
_LETTERS = """
SELECT group_name, offset, died_at, attempts, reason, worker, topic, published_at, publisher,
    payload FROM dead WHERE (group_name, offset) > (?, ?) ORDER BY group_name, offset LIMIT ?
"""
_LETTER_COLUMNS = (
    *("group", "offset", "died_at", "attempts", "reason", "worker"),
    *("topic", "published_at", "publisher", "payload"),
)
PAGE = 500
"""Dead letters that one look at the database has at most, ..."""
PAGE_BYTES_MAX = 1 << 20
"""... and so much of their payloads, but for the last."""


def groups(connection: sqlite3.Connection) -> Iterator[Record]:
    """`members`, who are connected: here only those of a log that brokers share, which has the
    sessions of all. Else a broker that runs knows them."""
    for row in connection.execute(_GROUPS):
        shared = parse_shared(row[0])
        assert shared is not None
        yield {
            "group": row[0],
            "name": shared[0],
            "filter": shared[1],
            "made_by": "command" if row[1] else "members",
            "attempts": row[2],
            "backoff_first_s": row[3] / 1000,
            "backoff_max_s": row[4] / 1000,
            "lease_s": row[5] / 1000,
            "cursor": row[6],
            "members": row[7],
            "retries": row[8],
            "dead_letters": row[9],
        } | ({} if row[10] is None else {"broker": row[10]})


def unread(connection: sqlite3.Connection, group: Record) -> int:
    """Messages above its cursor that match: what members have, and what nobody has yet."""
    reader = Reader(connection)
    position, count = group["cursor"] + 1, 0
    (high,) = connection.execute("SELECT ifnull(max(offset), 0) FROM messages").fetchone()
    while position <= high and count < UNREAD_MAX:
        found, position = reader.count_part([group["filter"]], position, high)
        count += found
    return count


def names(connection: sqlite3.Connection) -> list[str]:
    """Groups that are there, or that have dead letters."""
    rows = connection.execute("SELECT DISTINCT group_name FROM dead_letters")
    return sorted({*(name for (name,) in rows), *(each["group"] for each in groups(connection))})


def letters(connection: sqlite3.Connection, after: tuple[str, int]) -> list[Record]:
    """A page of dead letters, by group and offset, after this one; empty: there are no more. What
    is kept of a payload is bytes, or None."""
    found: list[Record] = []
    size = 0
    for row in connection.execute(_LETTERS, (*after, PAGE)):
        found.append(dict(zip(_LETTER_COLUMNS, row, strict=True)))
        size += len(row[-1] or b"")
        if size > PAGE_BYTES_MAX:
            break
    return found
