"""The checks of `pubsub check` on the database. They read everything and change nothing.

No look at the database lasts long: an open transaction would keep the broker's write-ahead log from
starting over. Messages are read in parts, as a subscriber reads them, and the index in parts of
BLOCKS_PER_LOOK. Only at rest SQLite looks at the structure of the whole file; while a broker runs
it looks at each of the small tables, and reading every row stands for the rest.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import groupby

from broker.documents import CursorDocument, InFlightDocument
from broker.errors import StoreCorrupt
from broker.message import Offset
from broker.store.sqlite import figures, gaps
from broker.store.sqlite.accounts import Accounts, Unsound, bounds
from broker.store.sqlite.errors import MISFIT, is_damage
from broker.store.sqlite.files import schema
from broker.store.sqlite.reader import Reader
from broker.store.sqlite.repair.damaged import Damage
from broker.store.sqlite.retention import removed, unread
from broker.store.sqlite.rows import BLOCK_SHIFT

LINES_MAX = 100
"""What SQLite says of the structure; more would say nothing new."""
BLOCKS_PER_LOOK = 32
NAMES_PER_LOOK = 20_000
MESSAGES_PER_READ = 4096
BYTES_PER_READ = 4 << 20

READ_IN_PARTS = frozenset(
    {"messages", "topics", "publishers", "topic_blocks", "blocks", "publisher_blocks", "removed"}
)
"""The tables that grow with the log."""

_HIGH = (
    "max((SELECT ifnull(max(offset), 0) FROM messages), (SELECT start - 1 FROM log),"
    f" {removed.NEWEST})"
)

_QUESTIONS = {
    "the retained message of topic {} is not there (offset {})": (
        "SELECT topic_id, offset FROM retained WHERE offset NOT IN (SELECT offset FROM messages)"
    ),
    "the retained message at offset {} is of topic {}, not {}": (
        "SELECT offset, m.topic_id, r.topic_id FROM retained r JOIN messages m USING (offset)"
        " WHERE m.topic_id <> r.topic_id"
    ),
    "the retained message at offset {} is not found by its name ({})": (
        "SELECT offset, t.name FROM retained JOIN topics t ON t.id = topic_id"
        " WHERE NOT EXISTS (SELECT 1 FROM retained_names n"
        " WHERE n.name = t.name AND n.topic_id = t.id)"
    ),
    "{} is listed among the topics with a retained message, and has none": (
        "SELECT name FROM retained_names WHERE topic_id NOT IN (SELECT topic_id FROM retained)"
    ),
    "the gap of offsets from {} to {} overlaps another, or ends before it begins": (
        "SELECT first, last FROM gaps g WHERE last < first"
        " OR EXISTS (SELECT 1 FROM gaps o WHERE o.first > g.first AND o.first <= g.last)"
    ),
    "the next offset would be {}, which was given out before": (
        "SELECT used + 1 FROM (SELECT max(ifnull((SELECT max(seq) FROM sqlite_sequence"
        " WHERE name = 'messages'), 0), (SELECT ifnull(max(offset), 0) FROM messages)) AS used)"
        " WHERE used < (SELECT max(last) FROM gaps)"
    ),
    "the cursor of {} ({}) is above the high watermark ({})": (
        f"SELECT client_id, offset, high FROM cursors, (SELECT {_HIGH} AS high)"
        " WHERE offset > high OR sent_through > high"
    ),
    "the cursor of {} ({}) is above what was sent to it ({})": (
        "SELECT client_id, offset, sent_through FROM cursors"
        " WHERE sent_through < offset OR offset < 0"
    ),
    "the subscription of {} to {} is no subscription": (
        "SELECT client_id, filter FROM subscriptions WHERE qos NOT BETWEEN 0 AND 2"
        " OR retain_handling NOT BETWEEN 0 AND 2 OR start_offset < 0 OR filter = ''"
    ),
    "the will of {} is no message": (
        "SELECT client_id FROM wills WHERE qos NOT BETWEEN 0 AND 2 OR delay_s < 0 OR topic = ''"
    ),
    "the dead letter of {} at offset {} has no message": (
        "SELECT group_name, offset FROM dead_letters"
        " WHERE offset NOT IN (SELECT offset FROM messages)"
    ),
    "what {} is to try again at offset {} is not there": (
        "SELECT client_id, offset FROM retries WHERE offset NOT IN (SELECT offset FROM messages)"
    ),
    "the dead letter of {} at offset {} makes no sense": (
        "SELECT group_name, offset FROM dead_letters WHERE attempts < 0 OR group_name = ''"
    ),
    "the settings of {} make no sense": (
        "SELECT client_id FROM group_settings WHERE attempts_max < 1 OR backoff_first_ms < 0"
        " OR backoff_max_ms < backoff_first_ms OR lease_ms < 1"
    ),
    "the QoS 2 identifiers of {} are damaged": (
        "SELECT client_id FROM received_qos2 WHERE length(packet_ids) % 2"
    ),
}
"""Each is one statement, and so of one moment."""

_UNLISTED = f"""
SELECT DISTINCT offset >> {BLOCK_SHIFT}, publisher_id FROM messages
WHERE offset >= max(:first << {BLOCK_SHIFT}, (SELECT start FROM log),
    (SELECT publishers_from FROM log) << {BLOCK_SHIFT})
AND offset < min(:last + 1, (SELECT max(offset) >> {BLOCK_SHIFT} FROM messages)) << {BLOCK_SHIFT}
EXCEPT SELECT block, publisher_id FROM publisher_blocks WHERE block BETWEEN :first AND :last
"""
_UNKNOWN = """
SELECT block, publisher_id FROM publisher_blocks
WHERE block BETWEEN :first AND :last AND publisher_id NOT IN (SELECT id FROM publishers)
"""

InFlight = Callable[[CursorDocument, Sequence[InFlightDocument]], object]
"""Looks at what a cursor and all pages of its session list. Raises StoreCorrupt."""


@dataclass(frozen=True, slots=True)
class Problem:
    """`offsets` are those of messages that cannot be read."""

    said: str
    offsets: range = range(0)


class Check:
    """One check of one database, of what it holds when the check begins."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        in_flight: InFlight,
        *,
        at_rest: bool,
        progress: Callable[[str, int], None] = lambda what, messages: None,
    ) -> None:
        """`at_rest`: nobody writes to the database meanwhile. `progress` is told after each part
        what is looked at (index, messages), and of how many messages that was; what it raises ends
        the check. Raises sqlite3.Error."""
        self.messages = 0
        """Messages that were read and are as they were written."""
        self._connection = connection
        self._in_flight = in_flight
        self._at_rest = at_rest
        self._progress = progress
        self._reader = Reader(connection, _Untold())
        start, high = connection.execute(f"SELECT start, {_HIGH} FROM log").fetchone()
        self.log_start = Offset(start)
        self.high_watermark = Offset(high)
        self.expected = 0
        """About how many messages there are to read."""
        with suppress(*MISFIT):  # It is found below, by its place.
            self.expected = gaps.count_messages(connection, start, high)

    def problems(self) -> Iterator[Problem]:
        """What is damaged, as it is found. Raises sqlite3.Error: it cannot be read for another
        reason than damage."""
        for look in (
            self._structure,
            self._log_start,
            self._references,
            self._names,
            self._cursors,
            self._unread,
            self._blocks,
            self._messages,
        ):
            try:
                yield from look()
            except (sqlite3.DatabaseError, StoreCorrupt) as error:  # Too damaged to go on with it.
                if not is_damage(error):
                    raise
                yield Problem(f"the database file: {error}")
            except MISFIT as error:
                yield Problem(f"the database file: a value is of another kind: {error}")

    def _structure(self) -> Iterator[Problem]:
        checks = [f"PRAGMA integrity_check({LINES_MAX})"]
        if not self._at_rest:
            tables = self._connection.execute(
                "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name"
            ).fetchall()
            checks = [f"PRAGMA integrity_check('{name}')" for (name,) in tables]
            checks = [sql for sql in checks if sql.split("'")[1] not in READ_IN_PARTS]
        applied = schema.applied_files(self._connection)
        for migration in schema.migrations():
            if applied.get(migration.version) != migration.sha256:
                yield Problem(f"the database says that another {migration.name} made it")
        for sql in checks:
            for (line,) in self._connection.execute(sql):
                if line != "ok":
                    yield Problem(f"the database file: {line}")

    def _log_start(self) -> Iterator[Problem]:
        with self._one_moment():
            (start,) = self._connection.execute("SELECT start FROM log").fetchone()
            true_start = figures.true_start(self._connection, start, 0)
        if true_start != start:
            yield Problem(f"the log start is damaged: {start}, and is {true_start}")

    def _references(self) -> Iterator[Problem]:
        for table, _, parent, _ in self._connection.execute("PRAGMA foreign_key_check"):
            yield Problem(f"a row of {table} refers to nothing in {parent}")
        for sentence, sql in _QUESTIONS.items():
            for row in self._connection.execute(sql):
                yield Problem(sentence.format(*row))

    def _names(self) -> Iterator[Problem]:
        """Topics and publishers by the index over their names: a name that is not found there
        would get another identifier."""
        for table, column in (("topics", "name"), ("publishers", "client_id")):
            last = 0
            while True:
                (end,) = self._connection.execute(
                    f"SELECT max(id) FROM (SELECT id FROM {table} WHERE id > ?"
                    " ORDER BY id LIMIT ?)",
                    (last, NAMES_PER_LOOK),
                ).fetchone()
                if end is None:
                    break
                for number, name in self._connection.execute(
                    f"SELECT id, {column} FROM {table} t WHERE id > ? AND id <= ? AND NOT EXISTS"
                    f" (SELECT 1 FROM {table} n WHERE n.{column} = t.{column} AND +n.id = t.id)",
                    (last, end),
                ).fetchall():
                    yield Problem(f"row {number} of {table} is not found by its name ({name})")
                last = end

    def _cursors(self) -> Iterator[Problem]:
        for cursor, pages in cursors(self._connection):
            try:
                self._in_flight(cursor, pages)
            except StoreCorrupt as error:
                yield Problem(str(error))

    def _unread(self) -> Iterator[Problem]:
        for said in unread.problems(self._connection):
            yield Problem(said)

    def _blocks(self) -> Iterator[Problem]:
        """The index and the figures of each block, beside its messages."""
        block = messages = 0
        while (first := self._next_block(block)) is not None:
            block = first + BLOCKS_PER_LOOK
            with self._one_moment():
                found = [
                    *self._index(first, block - 1),
                    *self._figures(first, block - 1),
                    *self._publishers(first, block - 1),
                ]
            yield from found
            yield from self._removed(first, block - 1)
            (count,) = self._connection.execute(
                "SELECT count(*) FROM messages WHERE offset >= ? AND offset < ?",
                (first << BLOCK_SHIFT, block << BLOCK_SHIFT),
            ).fetchone()
            messages += count
            self._progress("index", messages)

    def _next_block(self, block: int) -> int | None:
        """The first from `block` on that has messages, an index or figures."""
        (found,) = self._connection.execute(
            "SELECT min(block) FROM ("
            " SELECT min(block) AS block FROM blocks WHERE block >= ?1"
            " UNION ALL SELECT min(block) FROM topic_blocks WHERE block >= ?1"
            f" UNION ALL SELECT min(offset) >> {BLOCK_SHIFT} FROM messages"
            f" WHERE offset >= max(?1 << {BLOCK_SHIFT}, (SELECT start FROM log)))",
            (block,),
        ).fetchone()
        return None if found is None else int(found)

    def _index(self, first: int, last: int) -> Iterator[Problem]:
        """Every topic of a block is in the index, and no message is missing by the figures."""
        for offset, topic in self._connection.execute(
            "SELECT offset, topic_id FROM (SELECT min(offset) AS offset, topic_id FROM messages"
            " WHERE offset BETWEEN max(?, (SELECT start FROM log)) AND ?"
            f" GROUP BY offset >> {BLOCK_SHIFT}, topic_id) m WHERE NOT EXISTS (SELECT 1"
            f" FROM topic_blocks t WHERE t.block = m.offset >> {BLOCK_SHIFT}"
            " AND t.topic_id = m.topic_id)",
            (bounds(first)[0], bounds(last)[1]),
        ):
            yield Problem(f"the message at offset {offset} is not indexed (topic {topic})")
        accounts = Accounts(self._connection)
        (newest,) = self._connection.execute(
            "SELECT ifnull(max(offset), 0) FROM messages"
        ).fetchone()
        last = min(last, newest >> BLOCK_SHIFT)
        while first <= last:
            try:
                accounts.check_index(first, last, newest)
                return
            except Unsound as unsound:
                yield Problem(f"the figures of block {unsound.block} do not add up")
                first = unsound.block + 1

    def _figures(self, first: int, last: int) -> Iterator[Problem]:
        for (block,) in self._connection.execute(
            "SELECT block FROM blocks WHERE block BETWEEN ? AND ?", (first, last)
        ).fetchall():
            for topic_id in figures.disagreeing(self._connection, block):
                yield Problem(f"the figures of topic {topic_id} in block {block} do not add up")

    def _publishers(self, first: int, last: int) -> Iterator[Problem]:
        """A publisher that is not listed may lose its name, and with it its messages."""
        blocks = {"first": first, "last": last}
        for block, publisher in self._connection.execute(_UNLISTED, blocks):
            yield Problem(f"publisher {publisher} is not listed in block {block}")
        for block, publisher in self._connection.execute(_UNKNOWN, blocks):
            yield Problem(f"publisher {publisher}, listed in block {block}, is not there")

    def _removed(self, first: int, last: int) -> Iterator[Problem]:
        """What retention says that it removed is not there."""
        with self._one_moment():
            rows = self._connection.execute(
                "SELECT block, messages, newest FROM removed WHERE block BETWEEN ? AND ?",
                (first, last),
            ).fetchall()
            bits = removed.of_blocks(self._connection, first, last)
            there = [
                offset
                for block, of_block in bits.items()
                for (offset,) in self._connection.execute(
                    "SELECT offset FROM messages"
                    " WHERE offset BETWEEN max(?, (SELECT start FROM log)) AND ?",
                    bounds(block),
                )
                if of_block >> (offset & removed.PLACE) & 1
            ]
        for offset in there:
            yield Problem(f"the message at offset {offset} is said to be removed, and is there")
        for block, messages, newest in rows:
            found = bits[block].bit_count(), (block << BLOCK_SHIFT) + bits[block].bit_length() - 1
            if (messages, newest) != found:
                yield Problem(f"what was removed from block {block} does not add up")

    def _messages(self) -> Iterator[Problem]:
        """Every message, retained ones below the log start included."""
        position = Offset(0)
        while position <= self.high_watermark:
            read = self._reader.read(
                position, self.high_watermark, None, MESSAGES_PER_READ, BYTES_PER_READ
            )
            self.messages += len(read.messages)
            for part in read.damaged:
                yield _cannot_be_read(part)
            position = read.next
            self._progress("messages", self.messages)

    @contextmanager
    def _one_moment(self) -> Iterator[None]:
        self._connection.execute("BEGIN")
        try:
            yield
        finally:
            self._connection.execute("COMMIT")


def cursors(
    connection: sqlite3.Connection,
) -> Iterator[tuple[CursorDocument, list[InFlightDocument]]]:
    """Each cursor, and the pages of its session. One statement, and so of one moment."""
    rows = connection.execute(
        "SELECT c.client_id, offset, sent_through, next_packet_id, inflight, page, exchanges"
        " FROM cursors c LEFT JOIN in_flight p USING (client_id) ORDER BY c.client_id, page"
    )
    for cursor, group in groupby(rows, lambda row: CursorDocument(*row[:5])):
        yield (
            cursor,
            [
                InFlightDocument(cursor.client_id, page, exchanges)
                for *_, page, exchanges in group
                if page is not None
            ],
        )


class _Untold(Damage):
    """The report says what is damaged."""

    def found(self, block: int, damaged: Sequence[range]) -> None:
        pass


def _cannot_be_read(offsets: range) -> Problem:
    if len(offsets) == 1:
        return Problem(f"the message at offset {offsets.start} cannot be read", offsets)
    last = offsets.stop - 1
    return Problem(f"the messages at the offsets {offsets.start} to {last} cannot be read", offsets)
