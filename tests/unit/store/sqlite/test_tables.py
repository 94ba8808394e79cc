"""Documents as rows: what the contract does not show, how many statements they cost."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from itertools import groupby

import pytest

from broker.documents import CursorDocument, Delete, Document, Operation, Put, SessionDocument
from broker.message import Offset, WallUs
from broker.store.sqlite.store import SqliteStore
from broker.store.sqlite.tables import TABLES, _select


def session(number: int) -> Put:
    return Put(SessionDocument(f"sub{number}", 60, WallUs(1), None))


def cursor(number: int) -> Put:
    return Put(CursorDocument(f"sub{number}", Offset(0), Offset(0), 1, b""))


async def statements(sqlite: SqliteStore, operations: list[Operation]) -> list[str]:
    """Those on tables that storing the operations costs."""
    found: list[str] = []
    database = sqlite._thread.database
    database.set_trace_callback(found.append)
    await sqlite.transact(operations)
    database.set_trace_callback(None)
    return [sql for sql in found if sql.startswith(("INSERT", "DELETE", "SELECT"))]


async def test_cursors_that_move_together_are_one_statement(sqlite: SqliteStore) -> None:
    await sqlite.transact([session(n) for n in range(64)])
    assert len(await statements(sqlite, [cursor(n) for n in range(64)])) == 1


async def test_the_order_of_the_operations_is_kept(sqlite: SqliteStore) -> None:
    """A run of Puts of one class ends where something else comes."""
    gone = Delete(SessionDocument, ("sub1",))
    found = await statements(sqlite, [session(1), cursor(1), gone, session(1), session(2)])
    # What the foreign keys delete with the session is traced as a part of its statement.
    assert [
        begin for begin, _ in groupby(sql.split(" (")[0].split(" WHERE")[0] for sql in found)
    ] == [
        "INSERT INTO sessions",
        "INSERT INTO cursors",
        "DELETE FROM sessions",
        "INSERT INTO sessions",
    ]


def test_every_class_has_a_table_and_its_key_comes_first() -> None:
    for kind, table in TABLES.items():
        assert table.kind is kind
        assert table.select(0, table.width, 1).startswith(f"SELECT 0, {', '.join(kind.KEY)}")


@pytest.mark.parametrize("kind", TABLES)
async def test_a_part_costs_no_more_than_its_rows(
    kind: type[Document], sqlite: SqliteStore
) -> None:
    """Each is found by the index of the key, also the later parts of those that have a beginning in
    common: the first rows were looked through again for each part."""
    with closing(sqlite3.connect(sqlite.path)) as log:
        for length in range(len(kind.KEY)):
            sql = _select((kind,), length, True)
            plan = log.execute(f"EXPLAIN QUERY PLAN {sql}", [""] * sql.count("?")).fetchall()
            rest = kind.KEY[length:]
            compared = rest[0] if len(rest) == 1 else f"({','.join(rest)})"
            assert [compared in row[3].partition(" USING ")[2] for row in plan] == [True], plan
            assert ">" in plan[0][3]
