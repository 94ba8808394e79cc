"""Hidden: retained messages that damage to their tables hides from whoever looks for them.

`retained` says which message is retained on which topic, `retained_names` finds the topic by its
name, and neither has a checksum. But each repeats what the other and `topics` have, so one walk
over both shows where they disagree. It is made once after the start, in small parts, and told.
A message that only its name hides is found by the topic from then on; of the rest the topics are
told, as far as their names can be read.
"""

from __future__ import annotations

import json
import logging
import sqlite3

from broker.store.sqlite.errors import is_damage
from broker.store.sqlite.searching.search import TopicFilters

ROWS_AT_ONCE = 500
TOLD_MAX = 20
"""Topics that are named."""

_BY_TOPIC = """
SELECT r.topic_id, t.name, n.topic_id IS r.topic_id, m.topic_id IS r.topic_id
FROM (SELECT topic_id, offset FROM retained WHERE topic_id > ? ORDER BY topic_id LIMIT ?) r
LEFT JOIN topics t ON t.id = r.topic_id
LEFT JOIN retained_names n ON n.name = t.name
LEFT JOIN messages m ON m.offset = r.offset
ORDER BY r.topic_id
"""
_BY_NAME = """
SELECT n.name, r.topic_id
FROM (SELECT name, topic_id FROM retained_names WHERE name > ? ORDER BY name LIMIT ?) n
LEFT JOIN retained r USING (topic_id)
ORDER BY n.name
"""
_OFFSETS = """
SELECT offset FROM topics JOIN retained ON topic_id = id
WHERE name IN (SELECT value FROM json_each(?))
"""

logger = logging.getLogger(__name__)


class Hidden:
    """The walk, and what it found."""

    def __init__(self) -> None:
        self.done = False
        self.names: set[str] = set()
        """Topics whose retained message is there, but is not found by the name."""
        self.lost: set[str] = set()
        """What is retained and cannot be found, as it is to be told."""
        self._after_topic: int | None = -(1 << 63)
        """None: all were looked at."""
        self._after_name: str = ""

    def part(self, connection: sqlite3.Connection) -> None:
        """Look at the next rows. When it is done, tell."""
        try:
            if self._after_topic is not None:
                self._look_by_topic(connection, self._after_topic)
            else:
                self._look_by_name(connection)
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            self.lost.add("what cannot be read at all")
            self.done = True
        if self.done and (self.names or self.lost):
            logger.error(
                "the tables of retained messages are damaged: found in another way: %d; not found:"
                " %s",
                len(self.names),
                ", ".join(sorted(self.lost)[:TOLD_MAX]) or "none",
            )

    def offsets(self, connection: sqlite3.Connection, filters: TopicFilters) -> list[int]:
        """What is retained on the topics that match, and is not found by their names."""
        names = [name for name in self.names if filters.match(name)]
        if not names:
            return []
        return [offset for (offset,) in connection.execute(_OFFSETS, (json.dumps(names),))]

    def _look_by_topic(self, connection: sqlite3.Connection, after: int) -> None:
        rows = connection.execute(_BY_TOPIC, (after, ROWS_AT_ONCE)).fetchall()
        for topic_id, name, is_named, is_of_topic in rows:
            if not isinstance(name, str):
                self.lost.add(f"that of the topic with the number {topic_id}")
            elif not is_of_topic:
                self.lost.add(f"that of {name!r}")
            elif not is_named:
                self.names.add(name)
        ends = len(rows) < ROWS_AT_ONCE or rows[-1][0] <= after
        self._after_topic = None if ends else rows[-1][0]

    def _look_by_name(self, connection: sqlite3.Connection) -> None:
        rows = connection.execute(_BY_NAME, (self._after_name, ROWS_AT_ONCE)).fetchall()
        self.lost |= {f"that of {name!r}" for name, topic_id in rows if topic_id is None}
        self.done = len(rows) < ROWS_AT_ONCE or not isinstance(rows[-1][0], str)
        if not self.done:
            self.done = rows[-1][0] <= self._after_name
            self._after_name = rows[-1][0]
