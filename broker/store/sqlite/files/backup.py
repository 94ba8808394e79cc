"""A copy of a log, taken while a broker writes to it: consistent, and no snapshot is held for long.

SQLite's own copy begins anew whenever another program has written, or holds one snapshot from
begin to end, and the write-ahead log grows meanwhile. Here the copy is of rows. What only grows
(messages, names, the index) is copied in parts of about PART_S each; a last transaction takes what
came meanwhile, all that changes (sessions, cursors, what is retained ...), and leaves out what
retention removed. So the copy is the log as it was at that last moment, and has no free pages.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

from broker.store.sqlite import gaps
from broker.store.sqlite.files.new_file import NewFile
from broker.store.sqlite.rows import BLOCK_SHIFT

PART_S = 0.1
"""How long the snapshot of one part is to be held."""
PART_BYTES = 4 << 20
"""What one part is to write at most. Then it is synced: what piles up in the kernel would make the
syncs of the broker wait, and so its acknowledgements."""
ROWS_FIRST, ROWS_MAX = 256, 1 << 16
"""Keys of one part: at first, and at most."""
FEW_ROWS = 20_000
ROUNDS_MAX = 20
"""The last transaction begins when so few messages came during a round, or after so many rounds."""

GROWING = {
    "messages": "offset",
    "topics": "id",
    "publishers": "id",
    "topic_blocks": "block",
    "blocks": "block",
    "publisher_blocks": "block",
}
"""Tables whose rows are not changed once newer ones are there, by their key; but for what retention
does. What it did meanwhile shows in `removed`."""


class Copy:
    """Of the database that `new` has attached as `source`, into `new`, which is empty.

    Every call may raise sqlite3.Error, OSError, and what `progress` raises.
    """

    def __init__(self, new: NewFile, progress: Callable[[int, int], None]) -> None:
        """`progress` is told up to which offset messages are copied, and which is the last."""
        self._file = new
        self._new = new.connection
        self._bytes = 0
        """Of the copy, so far."""
        self._progress = progress
        self._copied = {table: -1 if key == "block" else 0 for table, key in GROWING.items()}
        """Up to which key."""
        self._step = dict.fromkeys(GROWING, ROWS_FIRST)
        self._tables: list[str] = []

    def run(self, *, as_backup: bool) -> None:
        """`as_backup`: whoever starts on the copy, however it came there, leaves a gap of offsets,
        since the original may have given out more. (S2)"""
        self._make_tables()
        self._new.execute("CREATE TEMP TABLE removed_before (block INTEGER PRIMARY KEY, messages)")
        if "removed" in self._tables:
            self._new.execute(
                "INSERT INTO temp.removed_before SELECT block, messages FROM source.removed"
            )
        growing = [table for table in GROWING if table in self._tables]
        for _ in range(ROUNDS_MAX):
            ends = {table: self._newest(table) for table in growing}
            few = ends["messages"] - self._copied["messages"] <= FEW_ROWS
            for table in growing:
                if GROWING[table] == "block":  # The newest block may still change.
                    ends[table] = min(ends[table], (ends["messages"] >> BLOCK_SHIFT) - 1)
                self._copy_up_to(table, ends[table])
            if few:
                break
        self._new.execute("BEGIN")
        self._take_the_rest(growing)
        if as_backup:
            self._new.execute(
                "UPDATE main.broker_runs SET stopped_at_us = NULL,"
                f" version = '{gaps.BACKUP}' || version WHERE version NOT LIKE '{gaps.BACKUP}%'"
                " AND id = (SELECT max(id) FROM main.broker_runs)"
            )
        self._new.execute("COMMIT")
        self._make_all_else()

    def _make_tables(self) -> None:
        rows = self._new.execute(
            "SELECT name, sql FROM source.sqlite_schema"
            " WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY rowid"
        ).fetchall()
        for name, sql in rows:
            self._new.execute(sql)
            self._tables.append(name)

    def _take_the_rest(self, growing: list[str]) -> None:
        new = self._new
        (start,) = new.execute("SELECT start FROM source.log").fetchone()
        for table in growing:
            self._insert(table, f"WHERE {GROWING[table]} > {self._copied[table]}")
        # What retention did since a part was copied.
        new.execute(
            "DELETE FROM main.messages WHERE offset < ?1 AND offset NOT IN"
            " (SELECT offset FROM source.messages WHERE offset < ?1)",
            (start,),
        )
        thinned = self._thinned()
        new.executemany(
            "DELETE FROM main.messages WHERE offset >= ?1 << 10 AND offset < (?1 + 1) << 10"
            " AND offset NOT IN (SELECT offset FROM source.messages"
            " WHERE offset >= ?1 << 10 AND offset < (?1 + 1) << 10)",
            [(block,) for block in thinned],
        )
        for table in growing:
            if GROWING[table] == "block":
                oldest = min(start >> BLOCK_SHIFT, self._copied[table])
                parts = [f"WHERE block <= {oldest}"]
                parts += [f"WHERE block = {block}" for block in thinned if block > oldest]
                for where in parts:
                    new.execute(f"DELETE FROM main.{table} {where}")
                    self._insert(table, where)
        for table in self._tables:
            if table not in growing:
                self._insert(table)
        new.execute("DELETE FROM main.sqlite_sequence")
        self._insert("sqlite_sequence")

    def _thinned(self) -> list[int]:
        """The blocks of which retention removed something since the copy began."""
        if "removed" not in self._tables:
            return []
        rows = self._new.execute(
            "SELECT block FROM source.removed r LEFT JOIN temp.removed_before b USING (block)"
            " WHERE b.messages IS NOT r.messages"
        )
        return [block for (block,) in rows]

    def _make_all_else(self) -> None:
        """Indexes and triggers at the end: these must not run for what is copied."""
        rows = self._new.execute(
            "SELECT sql FROM source.sqlite_schema"
            " WHERE type <> 'table' AND sql IS NOT NULL ORDER BY rowid"
        ).fetchall()
        for (sql,) in rows:
            self._new.execute(sql)
        for pragma in ("application_id", "user_version"):
            (value,) = self._new.execute(f"PRAGMA source.{pragma}").fetchone()
            self._new.execute(f"PRAGMA main.{pragma} = {value}")

    def _newest(self, table: str) -> int:
        sql = f"SELECT ifnull(max({GROWING[table]}), 0) FROM source.{table}"
        return int(self._new.execute(sql).fetchone()[0])

    def _copy_up_to(self, table: str, end: int) -> None:
        key = GROWING[table]
        while (position := self._copied[table]) < end:
            # Offsets have gaps: go on at the next row.
            (first,) = self._new.execute(
                f"SELECT min({key}) FROM source.{table} WHERE {key} > ?", (position,)
            ).fetchone()
            if first is None or first > end:
                self._copied[table] = end
                return
            last = min(end, first + self._step[table] - 1)
            began = perf_counter()
            self._insert(table, f"WHERE {key} BETWEEN {first} AND {last}")
            took = perf_counter() - began
            before, self._bytes = self._bytes, self._file.sync()
            written = self._bytes - before
            factor = min(2.0, PART_S / max(took, 1e-6), PART_BYTES / max(written, 1))
            self._step[table] = max(1, min(ROWS_MAX, int(self._step[table] * factor)))
            self._copied[table] = last
            if table == "messages":
                self._progress(last, end)

    def _insert(self, table: str, where: str = "") -> None:
        self._new.execute(f"INSERT INTO main.{table} SELECT * FROM source.{table} {where}")
