"""Topic Filters, and the identifiers of the topics that match them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence

from broker.topics import BYTES_MAX, TopicTree, is_literal, literal_prefix

FILTERS_SIZE_MAX = 200_000
"""Filters and matching topics that are remembered, over all reads. Beyond, all are forgotten."""
WILDCARD_SIZE = 8
"""A filter with wildcards counts as so many: it has nodes in a tree."""

AFTER_SLASH = chr(ord("/") + 1)
AFTER_ALL_NAMES = "\U0010ffff" * (BYTES_MAX // 4 + 1)


_DIFFERING_NAMES = """
SELECT t.id FROM topics t NOT INDEXED WHERE NOT EXISTS (
    SELECT 1 FROM topics i INDEXED BY sqlite_autoindex_topics_1
    WHERE i.name = t.name AND i.id = t.id
)
"""


class TopicFilters:
    """A set of filters, and the topics that match, of those that existed at the last look."""

    def __init__(self, filters: Iterable[str]) -> None:
        self.literals: set[str] = set()
        self._wildcards: TopicTree[None, str] = TopicTree()
        for filter in filters:
            if is_literal(filter):
                self.literals.add(filter)
            else:
                self._wildcards.add(filter, None, filter)
        self.name_ranges = _joined(map(_name_range, self._wildcards.filters()))
        """Ranges of names; every name that matches a filter with wildcards is in one of them."""
        self.seen = 0
        """The newest topic identifier that was looked at."""
        self.topic_ids: set[int] = set()

    @property
    def size(self) -> int:
        wildcards = WILDCARD_SIZE * len(self._wildcards)
        return len(self.literals) + wildcards + len(self.topic_ids)

    def match(self, name: str) -> bool:
        return name in self.literals or bool(self._wildcards.match(name))


def _name_range(filter: str) -> tuple[str, str]:
    """Names that can match the filter are at or after the first, and before the second."""
    prefix = literal_prefix(filter)
    return prefix, prefix.removesuffix("/") + AFTER_SLASH if prefix else AFTER_ALL_NAMES


def _joined(ranges: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """The ranges without those that lie in another one. Two of them never overlap in part."""
    joined: list[tuple[str, str]] = []
    for low, high in sorted(ranges):
        if not joined or low >= joined[-1][1]:
            joined.append((low, high))
    return joined


class Topics:
    """The topics in the database, by filter."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._filters: dict[tuple[str, ...], TopicFilters] = {}
        self._filters_size = 0

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

    def ids(self, filters: Sequence[str], newest: int) -> set[int]:
        """The topics up to `newest` that match any of `filters`."""
        key = tuple(filters)
        known = self._filters.get(key)
        if known is None:
            if self._filters_size > FILTERS_SIZE_MAX:
                self._filters.clear()
                self._filters_size = 0
            known = self._filters[key] = TopicFilters(filters)
            self._filters_size += known.size
        if newest > known.seen:
            before = known.size
            if known.seen:
                candidates = self._connection.execute(
                    "SELECT id, name FROM topics WHERE id BETWEEN ? AND ?", (known.seen + 1, newest)
                )
                known.topic_ids |= {id for id, name in candidates if known.match(name)}
            else:
                known.topic_ids |= self.find("t.id", "topics t", known)
            known.seen = newest
            self._filters_size += known.size - before
        return known.topic_ids

    def suspects(self) -> set[int]:
        """Topics whose name is not the same in the table and in its index: which of the two is
        damaged nobody knows, so whoever reads by filter looks at their messages."""
        rows = self._connection.execute(_DIFFERING_NAMES)
        return {topic_id for (topic_id,) in rows}

    def find(self, column: str, source: str, filters: TopicFilters) -> set[int]:
        """`column` of the rows whose topic matches. Looks at each name once, for all filters."""
        select = f"SELECT {column}, t.name FROM {source} WHERE t.name "
        rows = self._connection.execute(
            f"{select} IN (SELECT value FROM json_each(?))", (json.dumps([*filters.literals]),)
        )
        found = {value for value, _ in rows}
        for name_range in filters.name_ranges:
            rows = self._connection.execute(f"{select} >= ? AND t.name < ?", name_range)
            found.update(value for value, name in rows if filters.match(name))
        return found
