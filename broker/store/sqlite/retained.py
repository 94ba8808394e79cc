"""Which message is retained on which topic (S5)."""

from __future__ import annotations

import sqlite3
from typing import Any

from broker.store.sqlite.rows import EXPIRES_AT_US, PAYLOAD, RETAIN, TOPIC_ID, WIDTH


def move(connection: sqlite3.Connection, first: int, parameters: list[Any]) -> int:
    """Retain those of these messages, from offset `first` on, that ask for it; an empty payload
    removes what is retained. [MQTT-3.3.1-6] Returns by how many topics more have one."""
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
