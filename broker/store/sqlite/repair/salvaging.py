"""Salvage: whatever can be read of a damaged log (`remains.py`), put into a new one.

- A message counts if its checksum is right, in whatever page it is found; the first of an offset
  wins. Where the name of its topic or publisher is damaged, the index over the names has it too.
- What has no such checksum (sessions, subscriptions, cursors, wills, what is retained) is taken
  from the trees of its tables as they are now, since older versions of it lie around: what can be
  read of these, and what the new tables take.

Messages keep their offsets, so what a cursor says still holds. The offsets that are lost become
gaps, and so do those that may have been given out since (S2). Index and figures are made anew.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from broker.cache import Cache
from broker.documents import CursorDocument, InFlightDocument
from broker.errors import SchemaMismatch, StoreCorrupt
from broker.message import Offset
from broker.store.sqlite import figures
from broker.store.sqlite.files import schema
from broker.store.sqlite.repair.checking import InFlight, cursors
from broker.store.sqlite.repair.lost import Lost, leave_gaps
from broker.store.sqlite.repair.pages import Row, Value
from broker.store.sqlite.repair.remains import Remains
from broker.store.sqlite.retention import unread
from broker.store.sqlite.rows import BLOCK_SHIFT, COLUMNS, checksum, seed, without_offset

NAMES_MAX = 16
"""Names that are tried for one identifier: those of a topic and of a publisher, from table and
index, and what else looks like one."""
MESSAGE_TYPES = [type(None), int, int, int, int, int, int, bytes, bytes, int]
"""Of the columns in their order; the offset is the rowid."""
NAME_COLUMNS = 2
MADE_ANEW = frozenset({"topic_blocks", "retained_names", "publisher_blocks", "removed_unread"})

_INSERT = f"INSERT OR IGNORE INTO messages ({COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?)"


@dataclass(slots=True)
class Salvaged:
    """What there is in the new log, and what is not."""

    messages: int = 0
    retained: int = 0
    sessions: int = 0
    lost: list[Lost] = field(default_factory=list)
    unreadable_pages: int = 0
    """Pages of sessions and the like, or that the disk cannot read."""
    refused: int = 0
    """Sessions and the like that make no sense."""


@dataclass(slots=True)
class _Names:
    """Topic and publisher of a row, as they may be; and their identifiers in the new log, once a
    checksum has said that they are right."""

    topic: str
    publisher: str
    seed: int
    ids: tuple[int, int] | None = None


class Salvage:
    def __init__(
        self,
        remains: Remains,
        new: sqlite3.Connection,
        path: Path,
        in_flight: InFlight,
        progress: Callable[[int, int], None],
    ) -> None:
        """`new` is the new, empty database at `path`. `progress` is told how many pages were looked
        at, and of how many; what it raises ends the work."""
        self._remains = remains
        self._new = new
        self._path = path
        self._in_flight = in_flight
        self._progress = progress
        self._pairs: Cache[tuple[int, int], list[_Names]] = Cache()
        self._result = Salvaged()

    def run(self, noted: Offset) -> Salvaged:
        """`noted`: the newest offset that is known to have been given out. Raises sqlite3.Error,
        SchemaMismatch."""
        new = self._new
        known = schema.migrations()
        schema.migrate(new, self._path, known[: self._version(known[-1].version)])
        new.execute("ATTACH '' AS scratch")
        new.execute("CREATE TABLE scratch.names (id, name, PRIMARY KEY (id, name)) WITHOUT ROWID")
        with _transaction(new):
            new.executemany(
                "INSERT OR IGNORE INTO scratch.names VALUES (?, ?)", self._found_names()
            )
            new.executemany(_INSERT, self._messages())
        roots = dict(new.execute("SELECT name, rootpage FROM sqlite_schema WHERE type = 'table'"))
        roots |= self._remains.roots()  # If that is damaged, they may be where they are here.
        with _transaction(new):
            self._copy_documents(roots)
        schema.migrate(new, self._path, known)
        with _transaction(new):
            start = self._log_start(roots)
            self._retain(roots)
            new.execute(
                "DELETE FROM messages WHERE offset < ? AND offset NOT IN (SELECT offset FROM held)",
                (start,),
            )
            self._index(start)
            self._result.lost = leave_gaps(
                new, start, noted, lambda table: self._rows(table, roots)
            )
            self._keep_unread(roots, start)
            self._mend_sessions()
        self._count()
        new.execute("DETACH scratch")
        return self._result

    def _version(self, newest: int) -> int:
        """Of the schema that the log has: `newest` where that is damaged. Raises SchemaMismatch: it
        is from a newer program."""
        version = self._remains.version
        if 1 <= version <= newest:
            return version
        made_by = self._rows("schema_migrations", self._remains.roots())
        if version in [row.rowid for row in made_by]:
            raise SchemaMismatch(
                f"the log is from a newer pubsub (schema {version}, this program knows {newest});"
                " upgrade pubsub"
            )
        return newest

    # Messages

    def _found_names(self) -> Iterator[tuple[Value, str]]:
        """Whatever may be the name of a topic or a publisher, by its identifier."""
        for done, (pages, content) in enumerate(self._remains.images()):
            self._progress(done // 2, self._remains.count)
            if content is None or pages.columns(content) != NAME_COLUMNS:
                continue
            for row in pages.rows(content):
                match row.values:
                    case [None, str(name)]:
                        yield row.rowid, name
                    case [str(name), int(number)]:
                        yield number, name

    def _messages(self) -> Iterator[tuple[Value, ...]]:
        count = self._remains.count
        for done, (pages, content) in enumerate(self._remains.images()):
            self._progress((count + done) // 2, count)
            if content is None:
                self._result.unreadable_pages += 1
            elif pages.columns(content) == len(MESSAGE_TYPES):
                yield from filter(None, map(self._message, pages.rows(content)))

    def _message(self, row: Row) -> tuple[Value, ...] | None:
        """The row as the new log has it; None: it is no message, or a damaged one."""
        if [*map(type, row.values)] != MESSAGE_TYPES:
            return None
        values: Any = row.values
        _, topic_id, publisher_id, *rest, crc = values
        for names in self._names(topic_id, publisher_id):
            expected = checksum(names.seed, row.rowid, *rest)
            if crc == expected or crc == without_offset(expected, row.rowid):
                if names.ids is None:
                    names.ids = (
                        self._intern("topics", "name", topic_id, names.topic),
                        self._intern("publishers", "client_id", publisher_id, names.publisher),
                    )
                return (row.rowid, *names.ids, *rest, crc)
        return None

    def _names(self, topic_id: int, publisher_id: int) -> list[_Names]:
        """What these may stand for: first what a checksum has confirmed."""
        found = self._pairs.get((topic_id, publisher_id))
        if found is None:
            pairs = product(self._candidates(topic_id), self._candidates(publisher_id))
            found = [_Names(*pair, seed(*pair)) for pair in pairs]
            length = sum(len(names.topic) + len(names.publisher) for names in found)
            self._pairs.keep((topic_id, publisher_id), found, length)
        elif len(found) > 1 and found[0].ids is None:
            found.sort(key=lambda names: names.ids is None)
        return found

    def _candidates(self, number: int) -> list[str]:
        rows = self._new.execute(
            "SELECT name FROM scratch.names WHERE id = ? LIMIT ?", (number, NAMES_MAX)
        )
        return [name for (name,) in rows]

    def _intern(self, table: str, column: str, number: int, name: str) -> int:
        """The identifier of the name in the new log: the old one, unless that is taken."""
        new = self._new
        new.execute(f"INSERT OR IGNORE INTO {table} (id, {column}) VALUES (?, ?)", (number, name))
        new.execute(f"INSERT OR IGNORE INTO {table} ({column}) VALUES (?)", (name,))
        row = new.execute(f"SELECT id FROM {table} WHERE {column} = ?", (name,)).fetchone()
        return int(row[0])

    # All else

    def _copy_documents(self, roots: dict[str, int]) -> None:
        """Sessions, subscriptions, cursors ...: all tables WITHOUT ROWID but those of the index."""
        new = self._new
        tables = new.execute("SELECT name FROM pragma_table_list WHERE schema = 'main' AND wr")
        for (table,) in sorted({*tables} - {(name,) for name in MADE_ANEW}):
            defaults = [
                new.execute(f"SELECT {default or 'NULL'}").fetchone()[0]
                for (default,) in new.execute(
                    "SELECT dflt_value FROM pragma_table_info(?)", (table,)
                )
            ]
            insert = f"INSERT INTO {table} VALUES ({', '.join('?' * len(defaults))})"
            for row in self._rows(table, roots):
                try:
                    new.execute(insert, [*row.values, *defaults[len(row.values) :]])
                except (sqlite3.IntegrityError, sqlite3.ProgrammingError):
                    self._result.refused += 1

    def _rows(self, table: str, roots: dict[str, int]) -> Iterator[Row]:
        return self._remains.current.tree(roots[table]) if table in roots else iter(())

    def _log_start(self, roots: dict[str, int]) -> int:
        """What the old log says, unless it hides messages."""
        (oldest, newest) = self._new.execute(
            "SELECT ifnull(min(offset), 1), ifnull(max(offset), 0) FROM messages"
        ).fetchone()
        start = oldest
        kept = start, 1
        for row in self._rows("log", roots):
            match row.values:
                case [None, int(found), *more] if 1 <= found <= newest + 1:
                    start = found
                    match more:
                        case [_, int(keeps_all), int(missing_before), *_]:
                            kept = missing_before, keeps_all
                        case _:
                            kept = start, 1
        self._new.execute(
            "UPDATE log SET start = ?1, accounted_from = ?1, missing_before = min(?1, ?2),"
            " keeps_all = ?3, publishers_from = 1 + (?4 >> 10)",
            (start, *kept, newest),
        )
        return int(start)

    def _retain(self, roots: dict[str, int]) -> None:
        """What was retained; where some of that cannot be read, also the newest that was published
        to be retained on each other topic."""
        new, unreadable = self._new, self._remains.current.unreadable
        new.execute("CREATE TABLE scratch.retained (offset, expires_at_us)")
        for row in self._rows("retained", roots):
            match row.values:
                case [None, int(offset), *expires]:
                    new.execute(
                        "INSERT INTO scratch.retained VALUES (?, ?)", (offset, *(expires or [None]))
                    )
        new.execute(
            "INSERT INTO retained (topic_id, offset, expires_at_us)"
            " SELECT topic_id, max(m.offset), r.expires_at_us"
            " FROM scratch.retained r JOIN messages m USING (offset) GROUP BY topic_id"
        )
        if self._remains.current.unreadable > unreadable or "retained" not in roots:
            new.execute(
                "INSERT INTO retained (topic_id, offset) SELECT topic_id, offset FROM ("
                " SELECT topic_id, max(offset) AS offset, payload FROM messages"
                " WHERE retain = 1 GROUP BY topic_id) WHERE length(payload) > 0"
                " AND topic_id NOT IN (SELECT topic_id FROM retained)"
            )

    def _keep_unread(self, roots: dict[str, int], start: int) -> None:
        """What retention removed unread: who did not hear of it still does."""
        for row in self._rows("removed_unread", roots):
            topic_id = None
            match row.values:
                case [_, int(number), *_] if names := self._candidates(number):
                    topic_id = self._intern("topics", "name", number, names[0])
            if not unread.keep(self._new, row.values, topic_id, start):
                self._result.refused += 1

    def _index(self, start: int) -> None:
        new = self._new
        (newest,) = new.execute("SELECT ifnull(max(offset), 0) FROM messages").fetchone()
        position = start
        while (
            row := new.execute(
                "SELECT min(offset) FROM messages WHERE offset >= ?", (position,)
            ).fetchone()
        ) != (None,):
            block = row[0] >> BLOCK_SHIFT
            position = block + 1 << BLOCK_SHIFT
            if block < newest >> BLOCK_SHIFT:
                figures.write_from_rows(new, block)
            else:
                new.execute(
                    "INSERT INTO topic_blocks (block, topic_id)"
                    " SELECT DISTINCT ?, topic_id FROM messages WHERE offset >= max(?, ?)",
                    (block, block << BLOCK_SHIFT, start),
                )

    def _mend_sessions(self) -> None:
        """So that nobody is owed what is not there, or is taken for damaged."""
        new = self._new
        for (table,) in new.execute(
            "SELECT name FROM pragma_table_list WHERE schema = 'main' AND wr"
        ):
            for column, parent in new.execute(
                'SELECT "from", "table" FROM pragma_foreign_key_list(?)', (table,)
            ).fetchall():
                new.execute(
                    f"DELETE FROM {table} WHERE {column} NOT IN (SELECT {column} FROM {parent})"
                )
        for table in ("dead_letters", "retries"):
            new.execute(f"DELETE FROM {table} WHERE offset NOT IN (SELECT offset FROM messages)")
        high = "(SELECT max(ifnull(max(offset), 0), (SELECT start - 1 FROM log)) FROM messages)"
        damaged = [
            cursor.client_id for cursor, pages in cursors(new) if self._is_damaged(cursor, pages)
        ]
        rows = new.execute(f"SELECT client_id FROM cursors WHERE sent_through > {high}").fetchall()
        for client_id in {*damaged, *(client_id for (client_id,) in rows)}:
            new.execute("DELETE FROM in_flight WHERE client_id = ?", (client_id,))
            new.execute(
                f"UPDATE cursors SET inflight = x'', offset = min(offset, {high}),"
                f" sent_through = min(offset, {high}) WHERE client_id = ?",
                (client_id,),
            )
        if new.execute("SELECT 1 FROM log_time").fetchone() is None:
            # No deadline means anything without it: each begins anew, as after a crash.
            new.execute("UPDATE sessions SET expires_at_us = NULL")
            new.execute("UPDATE will_deadlines SET due_at_us = NULL")
        # Who has no cursor any more gets again what it subscribed to, rather than nothing.
        new.execute(
            "INSERT INTO cursors SELECT client_id, first, first, 1, x'', 1 FROM ("
            f" SELECT client_id, min(min(start_offset), {high}) AS first FROM subscriptions"
            " GROUP BY client_id) WHERE client_id NOT IN (SELECT client_id FROM cursors)"
        )

    def _is_damaged(self, cursor: CursorDocument, pages: Sequence[InFlightDocument]) -> bool:
        try:
            self._in_flight(cursor, pages)
        except StoreCorrupt:
            return True
        return False

    def _count(self) -> None:
        result = self._result
        result.messages, result.retained, result.sessions = self._new.execute(
            "SELECT (SELECT count(*) FROM messages), (SELECT count(*) FROM retained),"
            " (SELECT count(*) FROM sessions)"
        ).fetchone()
        result.unreadable_pages += self._remains.current.unreadable


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Without a way back: what fails leaves no database."""
    connection.execute("BEGIN")
    yield
    connection.execute("COMMIT")
