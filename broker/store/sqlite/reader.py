"""The readers' half of SqliteStore: what runs in the thread of one read-only connection.

Every call is one short look at the database (a long one would keep the write-ahead log from
starting over), bounded by what it was asked for and by how far it looks.

Damage is noticed where it is passed: checksums, rows out of order, rows that are missing by the
figures of their block (`accounts.py`). Then that block is read row by row (`damaged.py`), and what
cannot be read of it is named.

A read by filters first finds the blocks that hold any topic that matches (`topic_blocks`), then
their messages. So a rare topic is found without reading the messages between, and `#` costs no more
than reading everything.
"""

from __future__ import annotations

import json
import sqlite3
import sys
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from typing import Any, Concatenate, ParamSpec, TypeVar

from broker.cache import Cache
from broker.documents import Document, Key
from broker.errors import StoreCorrupt
from broker.message import Message, Offset
from broker.store import Amount, Read
from broker.store.removing import as_ranges
from broker.store.sqlite import retained, tables
from broker.store.sqlite.accounts import Accounts, Unsound, bounds
from broker.store.sqlite.errors import is_damage
from broker.store.sqlite.repair.damaged import Damage, DamagedBlock
from broker.store.sqlite.repair.hidden import Hidden
from broker.store.sqlite.rows import BLOCK_SHIFT, COLUMNS, checksum, seed, text, without_offset
from broker.store.sqlite.searching import measuring
from broker.store.sqlite.searching.counting import Counting
from broker.store.sqlite.searching.filters import Topics
from broker.store.sqlite.searching.index import BLOCKS_PER_RUN, BLOCKS_PER_STEP_MIN, Run, TopicIndex
from broker.store.sqlite.searching.measuring import Measure
from broker.store.sqlite.searching.search import Search, TopicFilters
from broker.store.sqlite.searching.when import FirstAt, LastBefore, When

COUNTED_MAX = 256
"""Blocks whose rows were counted lately, and need not be for the next part that is read."""

P = ParamSpec("P")
T = TypeVar("T")

_RANGE = f"SELECT {COLUMNS} FROM messages WHERE offset BETWEEN ? AND ?"
_RETAINED = "SELECT name, offset AS value FROM retained_names JOIN retained USING (topic_id)"
_TOPIC_IN = " AND topic_id IN (SELECT value FROM json_each(?))"


class Reader:
    def __init__(self, connection: sqlite3.Connection, damage: Damage | None = None) -> None:
        """What is found damaged is told to `damage`."""
        connection.text_factory = text
        self.damage = damage or Damage()
        self._connection = connection
        self._accounts = Accounts(connection)
        self._index = TopicIndex(connection, self._accounts)
        self._topics = Topics(connection)
        self._counting = Counting(connection, self._topics, self._index, self._suspect_topics)
        self._counted: set[tuple[int, int, frozenset[int] | None]] = set()
        self._names: Cache[tuple[int, int], tuple[str, str, int]] = Cache()

    def read(
        self,
        start: int,
        end: int,
        filters: Sequence[str] | None,
        limit: int,
        bytes_max: int,
    ) -> Read:
        """As `Store.read`; `end` is at or below the high watermark. `next` may be `start`:
        which topics match is not known yet.

        What does not add up is tried again up to the block where it is, and that block row by row.
        """
        while True:
            block, last = start >> BLOCK_SHIFT, end >> BLOCK_SHIFT
            try:
                return self._read(start, end, filters, limit, bytes_max)
            except Unsound as unsound:
                at = unsound.block
            except (sqlite3.DatabaseError, StoreCorrupt) as error:
                if not is_damage(error):
                    raise
                at = (block + last + 1) // 2  # Half of it, and so on: the error does not say where.
            if at <= block:
                return self._read_damaged(start, end, filters, limit, bytes_max)
            end = min(end, bounds(at - 1)[1])

    def _read_damaged(
        self, start: int, end: int, filters: Sequence[str] | None, limit: int, bytes_max: int
    ) -> Read:
        """What can be read of the block of `start`, up to `end`."""
        block = DamagedBlock(start >> BLOCK_SHIFT, self._connection, self._accounts, self.messages)
        match = None if filters is None else TopicFilters(filters).match
        read = block.read(start, min(end, block.last), match, limit, bytes_max)
        if not block.has_rows:
            read = block.skip_to_next_row(start, end)
        self.damage.found(block.number, block.damaged or read.damaged)
        return read

    def is_sound(self, number: int, high_watermark: int) -> bool:
        """Whether every message of this block, and its index, is as it was written."""
        block = DamagedBlock(
            number, self._connection, self._accounts, self.messages, high_watermark
        )
        self._suspect_topics()
        damaged = block.look(high_watermark)
        self.damage.found(number, damaged)
        return not damaged and block.is_indexed()

    def ask(
        self,
        look: Callable[Concatenate[sqlite3.Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Another look at the database, as short as those here."""
        return look(self._connection, *args, **kwargs)

    def _read(
        self, start: int, end: int, filters: Sequence[str] | None, limit: int, bytes_max: int
    ) -> Read:
        """As `read`. Raises Unsound, StoreCorrupt, sqlite3.DatabaseError: something is damaged."""
        if filters is None or self._topics.every(filters):
            part = self._read_range(start, end, None, limit, bytes_max)
            self._accounts.all_there([m.offset for m in part.messages], start, part.next)
            return part
        first = start >> BLOCK_SHIFT
        step = min(first + BLOCKS_PER_STEP_MIN - 1, end >> BLOCK_SHIFT)
        suspects = self._suspect_topics()
        newest = self._accounts.check_index(first, step, end)
        wanted = self._topics.wanted(filters, newest, suspects)
        if wanted is None:
            return Read([], Offset(start))
        if wanted.few == set() and not suspects:
            return Read([], Offset(end + 1))  # No message has a topic that matches.
        messages: list[Message] = []
        position = start
        rows_left = BLOCKS_PER_RUN << BLOCK_SHIFT
        for run in self._index.runs(start, end, wanted, suspects):
            last = min(end, run.last)
            if run.topic_ids:
                rows_left -= last - position + 1
            part = self._read_range(position, last, run.topic_ids, limit - len(messages), bytes_max)
            self._count(run, position, part)
            messages += part.messages
            bytes_max -= sum([message.size for message in part.messages])
            position = part.next
            if len(messages) >= limit or bytes_max <= 0 or rows_left <= 0:
                break
        return Read(messages, Offset(position))

    def _suspect_topics(self) -> set[int]:
        if self.damage.topics is None:
            self.damage.topics = self._topics.suspects()
        return self.damage.topics

    def _count(self, run: Run, start: int, part: Read) -> None:
        """Compare what was read from `start` on with the figures. Raises Unsound."""
        if not run.messages:
            return
        offsets = [message.offset for message in part.messages]
        for block in range(start >> BLOCK_SHIFT, (part.next - 1 >> BLOCK_SHIFT) + 1):
            expected = run.messages.get(block)
            if expected is None:
                continue
            first, last = bounds(block)
            if start <= first and last < part.next:
                found = bisect_right(offsets, last) - bisect_left(offsets, first)
                if found != expected:
                    raise Unsound(block)
            else:
                self._count_rows(block, expected, run.topic_ids)

    def _count_rows(self, block: int, expected: int, topic_ids: set[int] | None) -> None:
        """Of a block that is read in parts, count the rows; once for neighbouring reads."""
        known = block, expected, None if topic_ids is None else frozenset(topic_ids)
        if known in self._counted:
            return
        first, last = bounds(block)
        sql = (
            "SELECT count(*) FROM messages"
            " WHERE offset BETWEEN max(?, (SELECT start FROM log)) AND ?"
        )
        if topic_ids is None:
            (found,) = self._connection.execute(sql, (first, last)).fetchone()
        else:
            wanted = json.dumps([*topic_ids])
            (found,) = self._connection.execute(sql + _TOPIC_IN, (first, last, wanted)).fetchone()
        if found != expected:
            raise Unsound(block)
        if len(self._counted) >= COUNTED_MAX:
            self._counted.clear()
        self._counted.add(known)

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

        Raises StoreCorrupt: a checksum is wrong, or a row out of order. (S8)
        """
        messages: list[Message] = []
        append = messages.append
        names = self._names
        last = -1
        for (
            offset, topic_id, publisher_id, published_at_us, qos, retain, expires_at_us,
            payload, properties, crc,
        ) in rows:  # fmt: skip
            try:
                topic, publisher, seed = names[topic_id, publisher_id]
            except KeyError:
                topic, publisher, seed = self._look_up_names(offset, topic_id, publisher_id)
            try:
                expected = checksum(
                    seed, offset, published_at_us, qos, retain, expires_at_us, payload, properties
                )
            except TypeError as error:  # Damage makes a number of what was a text.
                raise StoreCorrupt(f"the message at offset {offset} is damaged") from error
            if offset <= last:
                raise StoreCorrupt(f"the message at offset {offset} is out of order")
            last = offset
            if not properties and properties != b"":  # To the checksum it is nothing, as b"" is.
                raise StoreCorrupt(f"the message at offset {offset} is damaged (properties)")
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
        names = (*row, seed(*row))
        return self._names.keep((topic_id, publisher_id), names, len(f"{row[0]}{row[1]}"))

    def nth_last(self, filters: Sequence[str] | None, count: int, start: int, end: int) -> Offset:
        """As `Store.nth_last`, over start..end."""
        offset = Offset(end + 1)
        while count > 0 and offset > start:
            count, offset = self.nth_last_part(filters, count, start, offset - 1)
        return offset

    def nth_last_part(
        self, filters: Sequence[str] | None, count: int, start: int, end: int
    ) -> tuple[int, Offset]:
        """A part of `Store.nth_last`."""
        return self._counting.nth_last_part(filters, count, start, end)

    def count_part(self, filters: Sequence[str], start: int, end: int) -> tuple[int, Offset]:
        """A part of `Store.count`."""
        return self._counting.count_part(filters, start, end)

    def measure_part(self, measure: Measure) -> None:
        """A part of `Store.measure`."""
        measure.part(self._connection, self._topics)

    def amount(self, offsets: Sequence[int]) -> Amount:
        """As `Store.amount`."""
        return measuring.amount(self._connection, offsets)

    def fetch(self, offsets: Sequence[int], bytes_max: int = sys.maxsize) -> Read:
        """As `Store.fetch`."""
        broken: set[int] = set()
        try:
            messages = self._fetch(offsets, bytes_max)
        except (sqlite3.DatabaseError, StoreCorrupt) as error:
            if not is_damage(error):
                raise
            messages, broken = self._fetch_one_by_one(offsets, bytes_max)
        full = sum([message.size for message in messages]) >= bytes_max
        stop = messages[-1].offset + 1 if messages and full else max(offsets, default=0) + 1
        if len(messages) == len(offsets):
            return Read(messages, Offset(stop))
        found = {message.offset for message in messages}
        gone = [offset for offset in offsets if offset < stop and offset not in found]
        damaged = as_ranges(sorted({*broken, *self._accounts.claimed(gone)}))
        for part in damaged:
            self.damage.found(part.start >> BLOCK_SHIFT, [part])
        return Read(messages, Offset(stop), damaged)

    def _fetch(self, offsets: Sequence[int], bytes_max: int) -> list[Message]:
        rows = self._connection.execute(
            f"SELECT {COLUMNS} FROM messages"
            " WHERE offset IN (SELECT value FROM json_each(?)) ORDER BY offset",
            (json.dumps([*offsets]),),
        )
        with closing(rows):
            return self.messages(rows, bytes_max)

    def _fetch_one_by_one(
        self, offsets: Sequence[int], bytes_max: int
    ) -> tuple[list[Message], set[int]]:
        """The messages, and the offsets of rows that cannot be read."""
        messages: list[Message] = []
        broken: set[int] = set()
        for offset in sorted(offsets):
            try:
                part = self._fetch([offset], bytes_max)
            except (sqlite3.DatabaseError, StoreCorrupt) as error:
                if not is_damage(error):
                    raise
                broken.add(offset)
                continue
            messages += part
            bytes_max -= sum([message.size for message in part])
            if bytes_max <= 0:
                break
        return messages, broken

    def search_retained(self, filters: Sequence[str]) -> Search:
        """A search for what is retained on topics that match, for `retained`."""
        return Search(_RETAINED, TopicFilters(filters))

    def retained(self, search: Search) -> list[int]:
        """A part of `Store.retained`, in no order."""
        return search.part(self._connection)

    def still_retained(self, offsets: Sequence[int], now_us: int) -> list[Offset]:
        """As `Store.still_retained`."""
        return retained.still(self._connection, offsets, now_us)

    def look_for_hidden(self, hidden: Hidden) -> None:
        """A part of the walk over what is retained."""
        hidden.part(self._connection)

    def hidden_retained(self, hidden: Hidden, filters: Sequence[str]) -> list[int]:
        """What `retained` does not find."""
        return hidden.offsets(self._connection, TopicFilters(filters))

    def documents(
        self, kinds: Sequence[type[Document]], key: tuple[str, ...], after: Key | None
    ) -> list[Any]:
        """A part of `Store.scan_together`."""
        return tables.select(self._connection, kinds, key, after)

    def without_subscriber(self, names: Sequence[str]) -> list[Any]:
        """As `Store.without_subscriber`."""
        return tables.without_subscriber(self._connection, names)

    def revision(self, kind: type[Document], key: tuple[str, ...]) -> int:
        return tables.TABLES[kind].revision(self._connection, key)

    def look_for_time(self, search: When) -> None:
        """A part of `Store.offset_at` or `Store.last_before`."""
        search.part(self._connection)

    def offset_at(self, time_us: int, start: int, end: int) -> Offset:
        """As `Store.offset_at`, over start..end."""
        return FirstAt(time_us, start, end).whole(self._connection)

    def last_before(self, time_us: int, start: int, end: int) -> Offset:
        """As `Store.last_before`, over start..end."""
        return LastBefore(time_us, start, end).whole(self._connection)
