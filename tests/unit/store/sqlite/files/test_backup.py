"""A copy is the log as it was at one moment, whatever is written and removed meanwhile."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest

from broker.documents import CursorDocument, Put, SessionDocument
from broker.message import Offset
from broker.store.sqlite.files import backup
from broker.store.sqlite.files.backup import Copy
from broker.store.sqlite.files.new_file import NewFile, new_file
from broker.store.sqlite.gaps import OFFSETS_LOST_MAX
from broker.store.sqlite.retention.trimming import Trimming
from broker.store.sqlite.store import SqliteStore
from tests.support import old_schemas
from tests.support.messages import message, numbered
from tests.support.sqlite import opened, problems
from tests.support.stores import read_all, retained

pytestmark = pytest.mark.long


def copy(
    source: Path,
    to: Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
    *,
    as_backup: bool = True,
) -> None:
    with new_file(to) as new:
        new.connection.execute("ATTACH ? AS source", (f"{source.as_uri()}?mode=ro",))
        Copy(new, progress).run(as_backup=as_backup)
        new.connection.execute("DETACH source")


def dump(path: Path) -> list[str]:
    """All tables, and all that the schema has."""
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
        schema = connection.execute("SELECT type, name, sql FROM sqlite_schema ORDER BY 1, 2")
        found = [str(row) for row in schema]
        for pragma in ("user_version", "application_id"):
            found.append(f"{pragma} {connection.execute(f'PRAGMA {pragma}').fetchone()}")
        tables = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
        for (table,) in tables.fetchall():
            found += sorted(
                f"{table} {row}" for row in connection.execute(f"SELECT * FROM {table}")
            )
    return found


async def fill(store: SqliteStore) -> None:
    cursor = CursorDocument("sub1", Offset(9), Offset(9), 1, b"")
    await store.append(
        [message("r", "kept", retain=True), *numbered(5000, lambda n: f"t/{n % 50}")],
        [Put(SessionDocument("sub1", 1, 1, None)), Put(cursor)],
    )


async def test_a_copy_has_every_row_and_everything_of_the_schema(
    sqlite: SqliteStore, tmp_path: Path
) -> None:
    await fill(sqlite)
    await sqlite.trim(Offset(1500))
    copy(sqlite.path, tmp_path / "copy.db", as_backup=False)
    assert dump(tmp_path / "copy.db") == dump(sqlite.path)
    assert problems(tmp_path / "copy.db", at_rest=True) == []


async def test_who_starts_on_a_backup_leaves_a_gap(
    sqlite: SqliteStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Also of a log that was stopped cleanly. The original may have gone on since. (S2)"""
    await fill(sqlite)
    await sqlite.close()
    copy(sqlite.path, tmp_path / "first.db")
    copy(tmp_path / "first.db", tmp_path / "copy.db")
    caplog.set_level("INFO")
    async with opened(tmp_path / "copy.db") as store:
        assert "as the log is a backup" in caplog.text
        later = [message("later")]
        await store.append(later)
        assert later[0].offset > 5001 + OFFSETS_LOST_MAX
        assert len(await read_all(store)) == 5002


@pytest.mark.parametrize("rows", [1000, 1 << 16])
async def test_a_copy_of_a_log_that_changes_all_the_time_is_of_one_moment(
    sqlite: SqliteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    """Messages come, are retained and trimmed between its parts."""
    await fill(sqlite)
    monkeypatch.setattr(backup, "ROWS_FIRST", 500)
    monkeypatch.setattr(backup, "ROWS_MAX", rows)
    monkeypatch.setattr(backup, "FEW_ROWS", 100)
    writer = sqlite._writer
    trimming = Trimming(writer)
    parts: list[int] = []

    def meanwhile(done: int, _: int) -> None:
        parts.append(done)
        if len(parts) < 20:
            writer.commit(numbered(200, lambda n: f"new/{n % 7}"), [], True)
            writer.commit([message(str(done), "kept", retain=True)], [], True)
            start = Offset(len(parts) * 250)
            trimming.move_log_start(start)
            position = 0
            while position < start:
                _, position = trimming.trim_some(start, position)
            thinned = range(4096 + 100 * len(parts), 4096 + 100 * len(parts) + 300, 3)
            trimming.take_out([at for at in thinned if at >> 10 == thinned.start >> 10], [])

    copy(sqlite.path, tmp_path / "copy.db", meanwhile, as_backup=False)
    assert len(parts) >= 5
    assert problems(tmp_path / "copy.db", at_rest=True) == []
    names = {"messages", "topic_blocks", "blocks", "retained", "log", "sqlite_sequence"}
    ours, theirs = (
        [row for row in dump(path) if row.split()[0] in names]
        for path in (tmp_path / "copy.db", sqlite.path)
    )
    assert ours == theirs


async def test_no_part_writes_much_before_it_is_synced(
    sqlite: SqliteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or the broker's own syncs would wait for all of it."""
    await sqlite.append([message(bytes(20_000)) for _ in range(2000)])
    sizes = [0]
    sync = NewFile.sync

    def synced(file: NewFile) -> int:
        sizes.append(sync(file))
        return sizes[-1]

    monkeypatch.setattr(NewFile, "sync", synced)
    copy(sqlite.path, tmp_path / "copy.db")
    written = [after - before for before, after in pairwise(sizes)]
    assert sum(written) > 40_000_000
    assert max(written) < 2.5 * backup.PART_BYTES


async def test_no_part_holds_a_snapshot_for_long(
    sqlite: SqliteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parts get smaller where they take longer."""
    await fill(sqlite)
    now = iter(range(1_000_000))
    monkeypatch.setattr(backup, "perf_counter", lambda: next(now))
    steps: list[int] = []
    copy(sqlite.path, tmp_path / "copy.db", lambda done, _: steps.append(done))
    assert steps[-1] == 5001
    assert [b - a for a, b in pairwise(steps)][2:] == [1] * (len(steps) - 3)


@pytest.mark.parametrize("version", old_schemas.VERSIONS)
async def test_a_log_of_each_earlier_schema_is_copied_as_it_is(
    tmp_path: Path, version: int
) -> None:
    path, to = tmp_path / "old.db", tmp_path / "copy.db"
    written = old_schemas.make(path, version)
    copy(path, to, as_backup=False)
    assert dump(to) == dump(path)
    async with opened(to) as store:
        assert await read_all(store) == written
        assert [m.offset for m in await retained(store, ["#"])] == [2400]
    assert problems(to, at_rest=True) == []


async def test_an_empty_log_is_copied(sqlite: SqliteStore, tmp_path: Path) -> None:
    copy(sqlite.path, tmp_path / "copy.db", as_backup=False)
    assert dump(tmp_path / "copy.db") == dump(sqlite.path)
