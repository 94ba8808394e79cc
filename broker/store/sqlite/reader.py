"""The readers' half of SqliteStore: what runs in the thread of one read-only connection.

Every call is one short look at the database (a long one would keep the write-ahead log from
starting over), bounded by what it was asked for and by how far it looks.

A read by filters first finds the identifiers of the topics that match, then the blocks that hold
any of them (`topic_blocks`), then their messages. So a rare topic is found without reading the
messages between, and `#` costs no more than reading everything.
"""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any

from broker.documents import Document
from broker.errors import StoreCorrupt
from broker.message import Message, Offset
from broker.store import Read
from broker.store.sqlite import tables
from broker.store.sqlite.rows import BLOCK_SHIFT, COLUMNS, checksum, seed, without_offset
from broker.topics import BYTES_MAX, TopicTree, is_literal, literal_prefix

NAMES_MAX = 32_768
"""Entries of the cache of names. A full cache is emptied."""

FILTERS_SIZE_MAX = 200_000
"""Filters and matching topics that are remembered, over all reads. Beyond, all are forgotten."""
WILDCARD_SIZE = 8
"""A filter with wildcards counts as so many: it has nodes in a tree."""

SEEK_TOPICS_MAX = 16
"""Up to so many topics are looked up one by one in each block; for more, all topics of the block
are read."""

AFTER_SLASH = chr(ord("/") + 1)
AFTER_ALL_NAMES = "\U0010ffff" * (BYTES_MAX // 4 + 1)

BLOCKS_PER_STEP_MIN, BLOCKS_PER_STEP_MAX = 8, 2048
TOPIC_BLOCKS_PER_READ = 100_000
"""About how many rows of `topic_blocks` one `read` looks up before it returns: 0.1 s."""

_RANGE = f"SELECT {COLUMNS} FROM messages WHERE offset BETWEEN ? AND ?"
_TOPIC_IN = " AND topic_id IN (SELECT value FROM json_each(?))"

_SEEK_BLOCKS = """
WITH RECURSIVE blocks (block) AS (
    SELECT ?1 UNION ALL SELECT block + 1 FROM blocks WHERE block < ?2
)
SELECT DISTINCT b.block FROM blocks b
CROSS JOIN json_each(?3) wanted
CROSS JOIN topic_blocks t ON t.block = b.block AND t.topic_id = wanted.value
"""
_READ_BLOCKS = "SELECT block, topic_id FROM topic_blocks WHERE block BETWEEN ? AND ?"


class _Filters:
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


@dataclass(slots=True)
class _Run:
    """The wanted topics that offsets up to `last` may hold; None: they hold no other topics."""

    last: int
    topic_ids: set[int] | None


def _join(first: int, last: int, found: dict[int, set[int] | None]) -> Iterator[_Run]:
    """Blocks first..last as runs. Neighbours that one statement can read are one run."""
    nothing: set[int] = set()

    def kind(block: int) -> int:
        topic_ids = found.get(block, nothing)
        return -1 if topic_ids is None else len(topic_ids) > 0

    for same, blocks in groupby(range(first, last + 1), kind):
        topic_ids: set[int] = set()
        for block in blocks:
            topic_ids |= found.get(block) or nothing
        yield _Run(((block + 1) << BLOCK_SHIFT) - 1, None if same == -1 else topic_ids)


class Reader:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._names: dict[tuple[int, int], tuple[str, str, int]] = {}
        self._filters: dict[tuple[str, ...], _Filters] = {}
        self._filters_size = 0

    def read(
        self,
        start: int,
        end: int,
        filters: Sequence[str] | None,
        limit: int,
        bytes_max: int,
    ) -> Read:
        """As `Store.read`; `end` is at or below the high watermark."""
        topic_ids = None if filters is None else self.topic_ids(filters)
        if topic_ids is None:
            return self._read_range(start, end, None, limit, bytes_max)
        messages: list[Message] = []
        position = start
        for run in self._runs(start, end, topic_ids):
            last = min(end, run.last)
            part = self._read_range(position, last, run.topic_ids, limit - len(messages), bytes_max)
            messages += part.messages
            bytes_max -= sum([message.size for message in part.messages])
            position = part.next
            if len(messages) >= limit or bytes_max <= 0:
                break
        return Read(messages, Offset(position))

    def _runs(self, start: int, end: int, topic_ids: set[int]) -> Iterator[_Run]:
        """Cut start..end, or as much of it as one read looks at, into runs."""
        block, last = start >> BLOCK_SHIFT, end >> BLOCK_SHIFT
        step, rows = BLOCKS_PER_STEP_MIN, 0
        while block <= last and rows < TOPIC_BLOCKS_PER_READ:
            until = min(last, block + step - 1)
            found, looked = self._blocks(block, until, topic_ids)
            rows += looked
            yield from _join(block, until, found)
            block = until + 1
            step = min(step * 2, BLOCKS_PER_STEP_MAX)

    def _blocks(
        self, first: int, last: int, topic_ids: set[int]
    ) -> tuple[dict[int, set[int] | None], int]:
        """The blocks in first..last that hold any of the topics, each with the topics that it
        holds (None: no others), and the number of rows that were looked up."""
        if len(topic_ids) <= SEEK_TOPICS_MAX:
            rows = self._connection.execute(_SEEK_BLOCKS, (first, last, json.dumps([*topic_ids])))
            return {block: topic_ids for (block,) in rows}, (last - first + 1) * len(topic_ids)
        looked = 0
        found: dict[int, set[int] | None] = {}
        rows = self._connection.execute(_READ_BLOCKS, (first, last))
        for block, pairs in groupby(rows, itemgetter(0)):
            here = {topic_id for _, topic_id in pairs}
            looked += len(here)
            if wanted := here & topic_ids:
                found[block] = None if wanted == here else wanted
        return found, looked + 1

    def _read_range(
        self, start: int, end: int, topic_ids: set[int] | None, limit: int, bytes_max: int
    ) -> Read:
        """The messages in start..end of these topics (None: all), within the limits."""
        if topic_ids is None:
            rows = self._connection.execute(
                _RANGE + " ORDER BY offset LIMIT ?", (start, end, limit)
            )
        elif not topic_ids:
            return Read([], Offset(end + 1))
        else:
            rows = self._connection.execute(
                _RANGE + _TOPIC_IN + " ORDER BY offset LIMIT ?",
                (start, end, json.dumps([*topic_ids]), limit),
            )
        with closing(rows):  # Or a damaged row would leave the statement open, with its snapshot.
            messages = self.messages(rows, bytes_max)
        size = sum([message.size for message in messages])
        full = len(messages) >= limit or (messages and size >= bytes_max)
        return Read(messages, Offset(messages[-1].offset + 1 if full else end + 1))

    def messages(self, rows: Iterable[Any], bytes_max: int = sys.maxsize) -> list[Message]:
        """The rows as messages, until they reach `bytes_max`. Hot: `make bench`.

        Raises StoreCorrupt: a checksum is wrong. (S8)
        """
        messages: list[Message] = []
        append = messages.append
        names = self._names
        for (
            offset, topic_id, publisher_id, published_at_us, qos, retain, expires_at_us,
            payload, properties, crc,
        ) in rows:  # fmt: skip
            try:
                topic, publisher, seed = names[topic_id, publisher_id]
            except KeyError:
                topic, publisher, seed = self._look_up_names(offset, topic_id, publisher_id)
            expected = checksum(
                seed, offset, published_at_us, qos, retain, expires_at_us, payload, properties
            )
            if crc != expected and crc != without_offset(expected, offset):
                raise StoreCorrupt(f"the message at offset {offset} is damaged (checksum)")
            append(
                Message(
                    topic,
                    payload,
                    qos,
                    retain == 1,
                    publisher,
                    published_at_us,
                    expires_at_us or None,
                    properties,
                    offset,
                )
            )
            bytes_max -= len(payload) + len(properties)
            if bytes_max <= 0:
                break
        return messages

    def _look_up_names(self, offset: int, topic_id: int, publisher_id: int) -> tuple[str, str, int]:
        row = self._connection.execute(
            "SELECT t.name, p.client_id FROM topics t, publishers p WHERE t.id = ? AND p.id = ?",
            (topic_id, publisher_id),
        ).fetchone()
        if row is None:
            raise StoreCorrupt(f"the message at offset {offset} is damaged (no topic or publisher)")
        if len(self._names) >= NAMES_MAX:
            self._names.clear()
        names = self._names[topic_id, publisher_id] = (*row, seed(*row))
        return names

    def topic_ids(self, filters: Sequence[str]) -> set[int] | None:
        """The topics that match any of `filters`; None if every existing topic does."""
        if (
            "#" in filters
            and not self._connection.execute(
                "SELECT EXISTS (SELECT 1 FROM topics WHERE name >= '$' AND name < '%')"
            ).fetchone()[0]
        ):
            return None  # Only names that begin with $ do not match it. [MQTT-4.7.2-1]
        key = tuple(filters)
        known = self._filters.get(key)
        if known is None:
            if self._filters_size > FILTERS_SIZE_MAX:
                self._filters.clear()
                self._filters_size = 0
            known = self._filters[key] = _Filters(filters)
            self._filters_size += known.size
        (newest,) = self._connection.execute("SELECT ifnull(max(id), 0) FROM topics").fetchone()
        if newest > known.seen:
            before = known.size
            if known.seen:
                candidates = self._connection.execute(
                    "SELECT id, name FROM topics WHERE id BETWEEN ? AND ?", (known.seen + 1, newest)
                )
                known.topic_ids |= {id for id, name in candidates if known.match(name)}
            else:
                known.topic_ids |= self._find("t.id", "topics t", known)
            known.seen = newest
            self._filters_size += known.size - before
        return known.topic_ids

    def _find(self, column: str, source: str, filters: _Filters) -> set[int]:
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

    def nth_last(self, filters: Sequence[str] | None, count: int, start: int, end: int) -> Offset:
        """As `Store.nth_last`, over start..end."""
        topic_ids = None if filters is None else self.topic_ids(filters)
        if topic_ids is None:
            row = self._connection.execute(
                "SELECT offset FROM messages WHERE offset BETWEEN ? AND ?"
                " ORDER BY offset DESC LIMIT 1 OFFSET ?",
                (start, end, count - 1),
            ).fetchone()
            return Offset(row[0] if row else start)
        last, first = end >> BLOCK_SHIFT, start >> BLOCK_SHIFT
        step = BLOCKS_PER_STEP_MIN
        while last >= first:
            since = max(first, last - step + 1)
            found, _ = self._blocks(since, last, topic_ids)
            for block in sorted(found, reverse=True):
                ids = topic_ids if found[block] is None else found[block]
                rows = self._connection.execute(
                    "SELECT offset FROM messages WHERE offset BETWEEN ? AND ?"
                    f"{_TOPIC_IN} ORDER BY offset DESC LIMIT ?",
                    (
                        max(start, block << BLOCK_SHIFT),
                        min(end, ((block + 1) << BLOCK_SHIFT) - 1),
                        json.dumps([*(ids or ())]),
                        count,
                    ),
                ).fetchall()
                count -= len(rows)
                if count == 0:
                    return Offset(rows[-1][0])
            last = since - 1
            step = min(step * 2, BLOCKS_PER_STEP_MAX)
        return Offset(start)

    def fetch(self, offsets: Iterable[int], bytes_max: int = sys.maxsize) -> list[Message]:
        """As `Store.fetch`."""
        rows = self._connection.execute(
            f"SELECT {COLUMNS} FROM messages"
            " WHERE offset IN (SELECT value FROM json_each(?)) ORDER BY offset",
            (json.dumps([*offsets]),),
        )
        with closing(rows):
            return self.messages(rows, bytes_max)

    def retained(self, filters: Sequence[str]) -> list[Offset]:
        """As `Store.retained`."""
        source = "topics t JOIN retained r ON r.topic_id = t.id"
        found = self._find("r.offset", source, _Filters(filters))
        return sorted(map(Offset, found))

    def documents(self, kinds: Sequence[type[Document]], key: tuple[str, ...]) -> list[Any]:
        """As `Store.scan_together`."""
        return tables.select(self._connection, kinds, key)

    def revision(self, kind: type[Document], key: tuple[str, ...]) -> int:
        return tables.TABLES[kind].revision(self._connection, key)

    def offset_at(self, time_us: int, start: int, end: int) -> Offset:
        """As `Store.offset_at`, over start..end: a binary search, as offsets may have gaps."""
        low, high = start, end + 1
        while low < high:
            middle = (low + high) // 2
            row = self._connection.execute(
                "SELECT offset, published_at_us FROM messages"
                " WHERE offset BETWEEN ? AND ? ORDER BY offset LIMIT 1",
                (middle, high - 1),
            ).fetchone()
            if row is None or row[1] >= time_us:
                high = middle
            else:
                low = row[0] + 1
        row = self._connection.execute(
            "SELECT min(offset) FROM messages WHERE offset BETWEEN ? AND ?", (low, end)
        ).fetchone()
        return Offset(end + 1 if row[0] is None else row[0])
