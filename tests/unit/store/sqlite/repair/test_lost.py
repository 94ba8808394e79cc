"""Lost: what salvage found no message for, without what retention removed."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from broker.store.sqlite.files import schema
from broker.store.sqlite.repair.lost import Lost, leave_gaps
from broker.store.sqlite.repair.pages import Row
from broker.store.sqlite.retention import removed


@pytest.fixture
def new(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    path = tmp_path / "new.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        schema.migrate(connection, path, schema.migrations())
        yield connection


def test_offsets_without_a_message_are_lost_in_a_gap_or_removed(new: sqlite3.Connection) -> None:
    insert = "INSERT INTO messages VALUES (?, 1, 1, ?, 0, 0, 0, x'', x'', 0)"
    new.executemany(insert, [(offset, 1000 + offset) for offset in (1, 2, 6, 20, 30)])
    bits = sum(1 << place for place in (3, 4, 6, 12, 13, 31))
    old = {
        "gaps": [Row(15, [None, 17])],
        "removed": [Row(0, [None, 5, 31, removed.packed(bits)])],
        "sqlite_sequence": [Row(0, ["messages", 33])],
    }
    lost = leave_gaps(new, 1, 33, lambda table: iter(old.get(table, [])))
    assert [(part.offsets, part.since_us) for part in lost] == [
        (range(5, 6), 1002),
        (range(7, 12), 1006),
        (range(14, 15), 1006),
        (range(18, 20), 1006),
        (range(21, 30), 1020),
        (range(32, 34), 1030),
    ]
    assert Lost(range(5, 6), 1002, 1006) in lost
    gaps = new.execute("SELECT first, last FROM gaps").fetchall()
    assert gaps[:3] == [(5, 5), (7, 11), (14, 19)]
    assert removed.count(new, 1, 40) == 5
    used = new.execute("SELECT seq FROM sqlite_sequence WHERE name = 'messages'").fetchone()
    assert used[0] > 33
