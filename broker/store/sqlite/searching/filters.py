"""Topics that match the filters of a reader.

While few topics match, they are found by their names and then sought in each block. When many
match, they are not listed: each topic is matched when a block that holds it is read.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Sequence

from broker.store.sqlite.searching.search import LOOKED_AT_MAX, Search, TopicFilters

FEW_TOPICS = 16
"""Up to this many topics are sought one by one in each block. With more, all topics of the block
are read."""
RANGES_MAX = 1000
"""With at most this many ranges of names, the names are searched for topics that match."""
JUDGED_MAX = 20_000
"""A set of filters remembers of this many topics whether they match. Beyond it, it forgets all."""
FILTERS_SIZE_MAX = 200_000
"""Filters and matched topics in memory, over all reads. Beyond this, the least recently used sets
of filters are forgotten."""
WILDCARD_SIZE = 8
"""A filter with wildcards counts as this many filters: it has nodes in a tree."""

_DIFFERING_NAMES = """
SELECT t.id FROM topics t NOT INDEXED WHERE NOT EXISTS (
    SELECT 1 FROM topics i INDEXED BY sqlite_autoindex_topics_1
    WHERE i.name = t.name AND i.id = t.id
)
"""


class WantedTopics:
    """The topics that match a set of filters."""

    def __init__(self, connection: sqlite3.Connection, filters: Sequence[str], newest: int) -> None:
        self.counted = 0
        """`size` when it was used last."""
        self._connection = connection
        self._filters = TopicFilters(filters)
        self._search = Search("SELECT name, id AS value FROM topics", self._filters)
        self.few: set[int] | None = set() if self._search.ranges <= RANGES_MAX else None
        """All topics that match, while they are few; None: ask `among`."""
        self._seen = newest
        """The newest topic that `few` covers, once the search is done."""
        self._judged: dict[int, bool] = {}

    @property
    def size(self) -> int:
        filters = self._filters
        return len(filters.literals) + WILDCARD_SIZE * len(filters.wildcards) + len(self._judged)

    def look(self, newest: int) -> bool:
        """Search one part of the names for topics up to `newest`. Whether it was the last."""
        if self.few is None:
            return True
        if not self._search.done:
            self.few.update(self._search.part(self._connection))
        elif newest > self._seen:
            until = min(newest, self._seen + LOOKED_AT_MAX)
            rows = self._connection.execute(
                "SELECT id, name FROM topics WHERE id BETWEEN ? AND ?", (self._seen + 1, until)
            )
            self.few.update(id for id, name in rows if self._filters.match(name))
            self._seen = until
        if len(self.few) > FEW_TOPICS:
            self.few = None
            return True
        return self._search.done and self._seen >= newest

    def among(self, topic_ids: Collection[int]) -> set[int]:
        """The given topics that match."""
        judged = self._judged
        unknown = [topic_id for topic_id in topic_ids if topic_id not in judged]
        if unknown:
            if len(judged) + len(unknown) > JUDGED_MAX:
                judged.clear()
                unknown = [*topic_ids]
            rows = self._connection.execute(
                "SELECT id, name FROM topics WHERE id IN (SELECT value FROM json_each(?))",
                (json.dumps(unknown),),
            )
            judged.update({id: self._filters.match(name) for id, name in rows})
        return {topic_id for topic_id in topic_ids if judged.get(topic_id)}


class Topics:
    """The topics in the database, by filter."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._wanted: dict[tuple[str, ...], WantedTopics] = {}
        """By filters; the most recently used last."""
        self._size = 0

    def every(self, filters: Sequence[str]) -> bool:
        """Whether every existing topic matches."""
        return (
            "#" in filters  # Only names that begin with $ do not match it. [MQTT-4.7.2-1]
            and not self._connection.execute(
                "SELECT EXISTS (SELECT 1 FROM topics WHERE name >= '$' AND name < '%')"
            ).fetchone()[0]
        )

    def newest(self) -> int:
        """The identifier of the newest topic; 0 for none."""
        (newest,) = self._connection.execute("SELECT ifnull(max(id), 0) FROM topics").fetchone()
        return int(newest)

    def wanted(
        self, filters: Sequence[str], newest: int, suspects: set[int]
    ) -> WantedTopics | None:
        """The topics up to `newest` that match any of `filters`; None: not yet known, ask again.

        With `suspects` no topic is searched by name: a damaged name may hide the names behind it.
        """
        key = tuple(filters)
        wanted = self._wanted.pop(key, None)
        if wanted is None:
            wanted = WantedTopics(self._connection, filters, newest)
        if suspects:
            wanted.few = None
        self._wanted[key] = wanted
        self._size += wanted.size - wanted.counted
        wanted.counted = wanted.size
        while self._size > FILTERS_SIZE_MAX and len(self._wanted) > 1:
            self._size -= self._wanted.pop(next(iter(self._wanted))).counted
        return wanted if wanted.look(newest) else None

    def suspects(self) -> set[int]:
        """Topics whose name differs between the table and its index. Nobody knows which of the two
        is damaged, so a reader with filters looks at the messages of these topics."""
        rows = self._connection.execute(_DIFFERING_NAMES)
        return {topic_id for (topic_id,) in rows}
