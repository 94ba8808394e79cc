"""Opening the database: whose file it may be, and what the connections keep to."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from broker.errors import SchemaMismatch, StoreUnavailable
from broker.store.sqlite.store import SqliteStore
from tests.support.stores import message


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
