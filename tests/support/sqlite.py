"""Looking into the database of a SqliteStore, and damaging it."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import TypeVar

from broker.session.cursor import listed
from broker.store.sqlite.files.schema import migrations
from broker.store.sqlite.repair.checking import Check
from broker.store.sqlite.store import SqliteStore

T = TypeVar("T")
KINDS = (
    r" (INTEGER|TEXT|BLOB)\b(?! PRIMARY)| NOT NULL| STRICT,?"
    r"| REFERENCES \w+ \(\w+\)( ON DELETE CASCADE)?"
)
"""What a table's statement says of the kinds of its values."""


@asynccontextmanager
async def opened(
    path: Path, *, durability: str = "fsync", accept_loss: bool = False, is_copy: bool = False
) -> AsyncIterator[SqliteStore]:
    """Closed at the end, also of a test that fails: its threads would keep the process alive."""
    store = SqliteStore(path, durability=durability, accept_loss=accept_loss, is_copy=is_copy)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def in_writer(store: SqliteStore, function: Callable[[sqlite3.Connection], T]) -> T:
    """Run it in the writer's thread, with the writer's connection."""
    return await store._thread.run(function, store._thread.database)


def ask(path: Path, sql: str) -> list[tuple[object, ...]]:
    """As `pubsub log` reads: another connection, read-only."""
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
        return connection.execute(sql).fetchall()


def change(path: Path, *statements: str) -> None:
    """Damage a database behind the store's back."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            assert connection.execute(statement).rowcount, "changed nothing"


def misfit(path: Path, table: str, column: str, value: str) -> None:
    """Put a value of another kind than the column's into one row: one flipped bit does that."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        (strict,) = connection.execute(
            "SELECT sql FROM sqlite_schema WHERE name = ?", (table,)
        ).fetchone()
        loose = re.sub(KINDS, "", strict)
    for schema, statement in (
        (
            loose,
            f"UPDATE {table} SET {column} = {value} WHERE {column} IN"
            f" (SELECT {column} FROM {table} LIMIT 1)",
        ),
        (strict, "SELECT 1"),
    ):
        change_schema(path, table, schema)
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute(statement)


def change_schema(path: Path, table: str, sql: str) -> None:
    """Have SQLite believe that this statement has made the table."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        (version,) = connection.execute("PRAGMA schema_version").fetchone()
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("UPDATE sqlite_schema SET sql = ? WHERE name = ?", (sql, table))
        connection.execute(f"PRAGMA schema_version = {version + 1}")


def problems(path: Path, *, at_rest: bool = False) -> list[str]:
    """What `pubsub check` says of it; with a broker on it, unless `at_rest`."""
    uri = f"{path.as_uri()}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as connection:
        check = Check(connection, listed, at_rest=at_rest)
        return [problem.said for problem in check.problems()]


def the_way_back(version: int) -> list[str]:
    """The statements that the migrations' comments give to whoever must go back to this schema."""
    lines = [
        line[5:]
        for migration in reversed(migrations())
        for line in migration.sql.splitlines()
        if migration.version > version and line.startswith("--   ")
    ]
    return [statement for part in " ".join(lines).split(";") if (statement := part.strip())]
