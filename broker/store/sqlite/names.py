"""Names: topics and publishers as the integers that stand for them in a row; bounded in memory."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import TypeVar

from broker.cache import Cache
from broker.store.sqlite.rows import seed

K = TypeVar("K")
V = TypeVar("V")


class _Found(Cache[K, V]):
    """A missing key is looked up, so that the hot loop has no branch for it."""

    def __init__(self, look_up: Callable[[K], V], length: Callable[[K], int]) -> None:
        super().__init__()
        self._look_up = look_up
        self._length_of = length

    def __missing__(self, key: K) -> V:
        return self.keep(key, self._look_up(key), self._length_of(key))


class Names:
    """Gives a new name its identifier in the transaction that is open."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._topics = _Found(self._topic_id, len)
        self._publishers = _Found(self._publisher_id, len)
        self.pairs = _Found(self._pair, lambda pair: len(pair[0]) + len(pair[1]))
        """By topic and publisher: both identifiers, and the seed of their checksums."""

    def forget(self) -> None:
        """The transaction was rolled back: identifiers may not be there any more."""
        for cache in (self._topics, self._publishers, self.pairs):
            cache.clear()

    def _pair(self, pair: tuple[str, str]) -> tuple[int, int, int]:
        topic, publisher = pair
        return self._topics[topic], self._publishers[publisher], seed(topic, publisher)

    def _topic_id(self, name: str) -> int:
        return self._intern("topics", "name", name)

    def _publisher_id(self, client_id: str) -> int:
        return self._intern("publishers", "client_id", client_id)

    def _intern(self, table: str, column: str, text: str) -> int:
        row = self._connection.execute(
            f"SELECT id FROM {table} WHERE {column} = ?", (text,)
        ).fetchone()
        if row is None:
            row = self._connection.execute(
                f"INSERT INTO {table} ({column}) VALUES (?) RETURNING id", (text,)
            ).fetchone()
        return int(row[0])
