"""Which message is retained on which topic (S5), until it expires."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Any

from broker.message import Offset
from broker.store.sqlite.rows import EXPIRES_AT_US, PAYLOAD, RETAIN, TOPIC_ID, WIDTH

AT_ONCE_MAX = 500
"""Retained messages that one transaction forgets: a few ms."""

_LOOK_UP = """
UPDATE retained SET expires_at_us = ifnull(
    (SELECT m.expires_at_us FROM messages m WHERE m.offset = retained.offset), 0
) WHERE topic_id IN (SELECT topic_id FROM retained WHERE expires_at_us IS NULL LIMIT ?)
"""
_FORGET = """
DELETE FROM retained WHERE topic_id IN (
    SELECT topic_id FROM retained WHERE expires_at_us > 0 AND expires_at_us <= ? LIMIT ?
)
"""
_STILL = """
SELECT m.offset FROM messages m
CROSS JOIN retained r ON r.topic_id = m.topic_id AND r.offset = m.offset
WHERE m.offset IN (SELECT value FROM json_each(?))
AND NOT ifnull(r.expires_at_us, 0) BETWEEN 1 AND ? ORDER BY m.offset
"""


def move(connection: sqlite3.Connection, first: int, parameters: list[Any]) -> int:
    """Retain the messages with RETAIN set; an empty payload removes the retained message of its
    topic. [MQTT-3.3.1-6] `first` is the offset of the first. Returns by how many topics more have
    a retained message."""
    more = 0
    for i, retain in enumerate(parameters[RETAIN::WIDTH]):
        if not retain:
            continue
        topic_id = parameters[i * WIDTH + TOPIC_ID]
        expires_at_us = parameters[i * WIDTH + EXPIRES_AT_US]
        if parameters[i * WIDTH + PAYLOAD]:
            moved = connection.execute(
                "UPDATE retained SET offset = ?, expires_at_us = ? WHERE topic_id = ?",
                (first + i, expires_at_us, topic_id),
            ).rowcount
            if not moved:
                connection.execute(
                    "INSERT INTO retained VALUES (?, ?, ?)", (topic_id, first + i, expires_at_us)
                )
                more += 1
        else:
            more -= connection.execute(
                "DELETE FROM retained WHERE topic_id = ?", (topic_id,)
            ).rowcount
    return more


def forget_expired(connection: sqlite3.Connection, now_us: int) -> tuple[int, bool]:
    """Forget some expired messages. Returns how many, and whether there may be more.

    For messages that an older program retained, it first finds out when they expire.
    """
    unknown = connection.execute(_LOOK_UP, (AT_ONCE_MAX,)).rowcount
    forgotten = connection.execute(_FORGET, (now_us, AT_ONCE_MAX)).rowcount
    return forgotten, AT_ONCE_MAX in (unknown, forgotten)


def still(connection: sqlite3.Connection, offsets: Sequence[int], now_us: int) -> list[Offset]:
    """See `Store.still_retained`."""
    rows = connection.execute(_STILL, (json.dumps([*offsets]), now_us))
    return [Offset(offset) for (offset,) in rows.fetchall()]
