"""`pubsub compact`: the log is what it was, and smaller."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from broker.errors import StoreCorrupt
from broker.message import Offset
from broker.store.sqlite.files.file import DatabaseFile
from cli.care.compact import compact
from cli.terminal.failure import CommandFailed, Exit
from tests.support.messages import message, numbered
from tests.support.sqlite import change, opened, problems
from tests.support.stores import read_all


@pytest.fixture
async def data_dir(tmp_path: Path) -> Path:
    """Of 20,000 messages the last 1,000 are left."""
    directory = tmp_path / "data"
    directory.mkdir()
    async with opened(directory / "pubsub.db") as store:
        await store.append(numbered(20_000))
        await store.trim(Offset(19_001))
    return directory


async def test_free_pages_are_given_back(
    data_dir: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The file is no larger than if nothing had ever been removed from it."""
    path, fresh = data_dir / "pubsub.db", tmp_path / "fresh.db"
    async with opened(fresh) as store:
        await store.append(numbered(1000))
    before = path.stat().st_size
    compact(data_dir, json=True)
    record = json.loads(capfd.readouterr().out)
    assert record["bytes_before"] == before
    assert record["bytes_after"] == path.stat().st_size <= fresh.stat().st_size < before
    files = sorted(f.name for f in data_dir.iterdir())  # noqa: ASYNC240
    assert files == ["broker.lock", "pubsub.db", "pubsub.db-note"]
    assert problems(path, at_rest=True) == []
    async with opened(path) as store:
        assert len(await read_all(store)) == 1000
        later = [message("later")]
        await store.append(later)
        assert later[0].offset == 20_001  # It was stopped cleanly, and that is not forgotten.
    compact(data_dir)
    assert "MB given back" in capfd.readouterr().out


async def test_what_an_unclean_stop_left_is_in_it(data_dir: Path) -> None:
    async with opened(data_dir / "pubsub.db") as store:
        await store.append(numbered(50))
        shutil.copytree(data_dir, data_dir.parent / "left")
    left = data_dir.parent / "left"
    compact(left)
    assert not (left / "pubsub.db-wal").exists()
    async with opened(left / "pubsub.db") as store:
        assert len(await read_all(store)) == 1050
        later = [message("later")]
        await store.append(later)
        assert later[0].offset > 20_050 + (1 << 20)


def test_where_there_is_nothing_to_give_back_nothing_is_written(
    data_dir: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    compact(data_dir)
    before = (data_dir / "pubsub.db").stat()
    compact(data_dir)
    after = (data_dir / "pubsub.db").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert "0.0 MB given back" in capfd.readouterr().out


def test_how_much_room_it_needs_is_said(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(CommandFailed, match=r"needs 0\.\d MB in .* are free; or `pubsub backup`"):
        compact(data_dir)


def test_a_damaged_log_stays_as_it_is(data_dir: Path) -> None:
    path = data_dir / "pubsub.db"
    change(path, "UPDATE messages SET payload = x'00' WHERE offset = 19500")
    before = path.read_bytes()
    with pytest.raises(StoreCorrupt, match="is damaged"):
        compact(data_dir)
    assert path.read_bytes() == before
    assert not (data_dir / "pubsub.db.partial").exists()


async def test_what_an_unclean_stop_has_lost_is_not_made_good(data_dir: Path) -> None:
    async with opened(data_dir / "pubsub.db") as store:
        await store.append(numbered(50))
        shutil.copytree(data_dir, data_dir.parent / "left")
    left = data_dir.parent / "left"
    (left / "pubsub.db-wal").unlink()
    with pytest.raises(StoreCorrupt, match=r"write-ahead log .* is missing"):
        compact(left)


def test_another_program_that_has_the_log_open_is_in_the_way(data_dir: Path) -> None:
    """It would go on with the old file, and with the new write-ahead log."""
    with closing(sqlite3.connect(data_dir / "pubsub.db")) as connection:
        connection.execute("SELECT * FROM log").fetchall()
        with pytest.raises(CommandFailed, match="is in use by another program"):
            compact(data_dir)


def test_a_broker_has_to_be_stopped_first(data_dir: Path) -> None:
    file = DatabaseFile(data_dir / "pubsub.db")
    with pytest.raises(CommandFailed, match="nothing could be acknowledged; stop it with"):
        compact(data_dir)
    file.close()


def test_where_no_log_is_that_is_said(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match="no log at") as failed:
        compact(tmp_path)
    assert failed.value.code is Exit.NOTHING_THERE
