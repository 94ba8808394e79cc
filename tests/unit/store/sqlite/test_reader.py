"""Reading by many filters: what is found, and that no name is looked at once for each of them."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from itertools import product
from typing import Any

import pytest

from broker.documents import CursorDocument, Put, SessionDocument
from broker.errors import StoreCorrupt
from broker.message import Offset, WallUs
from broker.store.sqlite.reader import Reader
from broker.store.sqlite.repair.damaged import Damage
from broker.store.sqlite.rows import COLUMNS
from broker.store.sqlite.store import SqliteStore
from broker.store.sqlite.thread import ConnectionThread
from broker.topics import matches
from tests.support.messages import message, numbered
from tests.support.sqlite import ask
from tests.support.stores import END, read_all, retained

LEVELS = ("", "a", "a!", "a.", "a0", "\U0010ffff", "\U0010ffffb", "$x")
"""What sorts right before and after `a`, `a/` and the last character there is."""
NAMES = [
    name
    for depth in (1, 2, 3)
    for levels in product(LEVELS, repeat=depth)
    if (name := "/".join(levels))
]
FILTERS = [
    "/".join(levels)
    for depth in (1, 2, 3)
    for levels in product((*LEVELS, "+"), repeat=depth)
    if any(levels)
] + ["#", *(f"{name}/#" for name in NAMES if name.count("/") < 2), "+/#", "/#"]


@pytest.mark.parametrize("seed", range(4))
async def test_the_topics_of_many_filters_are_found(sqlite: SqliteStore, seed: int) -> None:
    chosen = random.Random(seed)
    known = chosen.sample(NAMES, len(NAMES) // 2)
    later = [name for name in NAMES if name not in known]
    sets = [chosen.sample(FILTERS, count) for count in (1, 1, 1, 2, 2, 5, 20)]
    sets.append(["a/#", "a0/#"])  # The names of one come right after those of the other.
    published: list[str] = []
    for names in (known, later):  # The second time it is only asked which new topics match.
        await sqlite.append([message(name, name, retain=True) for name in names])
        published += names
        for filters in sets:
            wanted = [name for name in published if any(matches(f, name) for f in filters)]
            assert [m.topic for m in await read_all(sqlite, filters)] == wanted, filters
            assert [m.topic for m in await retained(sqlite, filters)] == wanted, filters


async def test_a_start_looks_for_nothing_above_the_high_watermark(sqlite: SqliteStore) -> None:
    await sqlite.append(numbered(3))
    looks: list[str] = []
    with closing(sqlite3.connect(sqlite.path)) as connection:
        connection.set_trace_callback(looks.append)
        assert Reader(connection, Damage()).is_sound(0, 3)
    assert len(looks) < 20


async def test_names_are_looked_through_once_however_many_filters_there_are(
    sqlite: SqliteStore,
) -> None:
    await sqlite.append([message(topic=name, retain=True) for name in NAMES])
    statements: list[str] = []
    for thread, _ in sqlite._lanes.readers:
        thread.database.set_trace_callback(statements.append)
    filters = [f"{first}/{n}/+" for first in ("+", "a", "a0") for n in range(100)]
    for statements_max in (10, 2):  # What matches is remembered.
        statements.clear()
        assert (await sqlite.read(Offset(1), sqlite.high_watermark, filters)).messages == []
        assert len([s for s in statements if "topics" in s]) <= statements_max
        await sqlite.read(Offset(1), sqlite.high_watermark, filters)  # By the other reader.
    statements.clear()
    assert await sqlite.retained(filters) == []
    assert len(statements) <= 3


async def test_a_read_without_a_match_looks_at_a_bounded_part(
    sqlite: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.store.sqlite.searching.index.TOPIC_BLOCKS_PER_READ", 4)
    last = message("x", "rare")
    await sqlite.append([*numbered(20_000), last])
    read = await sqlite.read(Offset(1), END, ["rare"])
    assert read.messages == []
    assert 1 < read.next < 20_000
    assert await read_all(sqlite, ["rare"]) == [last]


@pytest.mark.parametrize("filters", [["#"], ["t/1"], ["t/+"]])
async def test_the_last_messages_are_counted_a_part_at_a_time(
    sqlite: SqliteStore, monkeypatch: pytest.MonkeyPatch, filters: list[str]
) -> None:
    monkeypatch.setattr("broker.store.sqlite.searching.counting.ROWS_COUNTED_MAX", 1000)
    monkeypatch.setattr("broker.store.sqlite.searching.index.BLOCKS_PER_STEP_MAX", 2)
    monkeypatch.setattr("broker.store.sqlite.searching.counting.BLOCKS_PER_STEP_MAX", 2)
    written = [message(topic=f"t/{n % 20}") for n in range(5000)]
    await sqlite.append(written)
    wanted = [m.offset for m in written if filters != ["t/1"] or m.topic == "t/1"]
    parts = 0
    look = Reader.nth_last_part

    def counted(reader: Reader, *args: Any) -> tuple[int, Offset]:
        nonlocal parts
        parts += 1
        return look(reader, *args)

    monkeypatch.setattr(Reader, "nth_last_part", counted)
    for count in (1, 70, len(wanted)):
        assert await sqlite.nth_last(filters, count) == wanted[-count]
    assert parts >= 5
    assert await sqlite.nth_last(filters, 5001) == sqlite.log_start
    await sqlite.trim(Offset(2500))
    assert await sqlite.nth_last(filters, 70) == wanted[-70]
    assert await sqlite.nth_last(filters, 5000) == sqlite.log_start


async def test_documents_that_are_read_together_are_of_one_moment(
    sqlite: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One hop, and what is committed between two tables is not seen in the second."""
    moment, calls = 0, 0

    def commit_the_next(statement: str) -> None:
        nonlocal moment
        moment = at = Offset(moment + 1)
        session = SessionDocument("sub1", moment, WallUs(1), None)
        cursor = CursorDocument("sub1", at, at, 1, b"")
        sqlite._writer.commit([], [Put(session), Put(cursor)], durable=True)

    run = ConnectionThread.run

    async def counted(thread: ConnectionThread, *args: Any) -> Any:
        nonlocal calls
        calls += 1
        return await run(thread, *args)

    commit_the_next("")
    for thread, _ in sqlite._lanes.readers:
        thread.database.set_trace_callback(commit_the_next)
    monkeypatch.setattr(ConnectionThread, "run", counted)
    session, cursor = await sqlite.scan_together((SessionDocument, CursorDocument), ("sub1",))
    assert isinstance(session, SessionDocument)
    assert isinstance(cursor, CursorDocument)
    assert session.session_expiry_s == cursor.offset == moment
    assert calls == 1


@pytest.mark.parametrize("column", ["payload", "properties"])
@pytest.mark.parametrize("found", [0, "", 0.0, None])
async def test_what_is_no_blob_any_more_is_damaged(
    sqlite: SqliteStore, column: str, found: object
) -> None:
    """One bit of a row's header makes a number of an empty blob. Found by `tests.support.flips`."""
    await sqlite.append([message("")])
    columns = COLUMNS.split(", ")
    [row] = ask(sqlite.path, f"SELECT {COLUMNS} FROM messages")
    damaged = [found if name == column else value for name, value in zip(columns, row, strict=True)]
    with closing(sqlite3.connect(sqlite.path)) as connection:
        assert len(Reader(connection).messages([row])) == 1
        with pytest.raises(StoreCorrupt, match="offset 1 is damaged"):
            Reader(connection).messages([damaged])
