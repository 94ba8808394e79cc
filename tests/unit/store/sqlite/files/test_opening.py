"""Opening the database: whose file it may be, and what the connections keep to."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest

from broker.errors import SchemaMismatch, StoreUnavailable
from broker.store.sqlite import writer
from broker.store.sqlite.files import opening
from broker.store.sqlite.repair import recovery
from broker.store.sqlite.store import SqliteStore
from tests.support.messages import message
from tests.support.patience import PATIENCE_S
from tests.support.sqlite import ask


async def test_only_the_owner_may_read_what_is_written(sqlite: SqliteStore) -> None:
    await sqlite.append([message()])
    for file in sqlite.path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file.name


async def test_what_is_not_a_database_is_refused(tmp_path: Path) -> None:
    content = b"hello, this is a text file and not a database" * 90
    path = tmp_path / "pubsub.db"
    path.write_bytes(content)
    with pytest.raises(SchemaMismatch, match="is not an SQLite database") as caught:
        await SqliteStore(path).open()
    assert str(path) in str(caught.value)
    assert path.read_bytes() == content


async def test_a_directory_in_the_place_of_the_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SchemaMismatch, match="is a directory"):
        await SqliteStore(tmp_path).open()


async def test_a_directory_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="No such file"):
        await SqliteStore(tmp_path / "none" / "pubsub.db").open()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
async def test_a_file_that_may_not_be_written_is_said(tmp_path: Path) -> None:
    path = tmp_path / "pubsub.db"
    path.touch(mode=0o400)
    with pytest.raises(StoreUnavailable, match="cannot be written"):
        await SqliteStore(path).open()


@pytest.mark.parametrize("mode", ["NORMAL", "EXCLUSIVE"])
@pytest.mark.parametrize("new", [False, True])
async def test_a_lock_of_another_program_is_said_once_and_waited_for(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    new: bool,
    mode: str,
) -> None:
    monkeypatch.setattr(recovery, "LOCK_WAIT_S", 0.01)
    monkeypatch.setattr(opening, "LOCK_RETRY_S", 0.01)
    monkeypatch.setattr(writer, "START_LOCK_WAIT_MS", 10)
    path = tmp_path / "pubsub.db"
    store = SqliteStore(path)
    if not new:
        await store.open()
        await store.close()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute(f"PRAGMA locking_mode = {mode}")
        other.execute("BEGIN IMMEDIATE")

        async def said(times: int) -> None:
            async with asyncio.timeout(PATIENCE_S):
                while len(caplog.messages) < times:  # noqa: ASYNC110  (it has no event)
                    await asyncio.sleep(0.01)

        waiting = asyncio.create_task(store.open())
        await said(1)
        await asyncio.sleep(0.1)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert waiting.cancelled(), "it can be told to stop while it waits"
        waiting = asyncio.create_task(store.open())
        await said(2)
        assert not waiting.done()
        other.execute("ROLLBACK")
    async with asyncio.timeout(PATIENCE_S):
        await waiting
    await store.append([message()])
    await store.close()
    sentence = f"{path} is locked by another program: the broker starts when that lets go of it"
    assert caplog.messages == [sentence, sentence]
    assert len(ask(path, "SELECT * FROM broker_runs")) == (1 if new else 2)
