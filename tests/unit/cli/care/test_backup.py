"""`pubsub backup`: where a copy is made, and when none is."""

from __future__ import annotations

import json
import signal
import sqlite3
import stat
from pathlib import Path
from typing import Any

import pytest

from broker.errors import SchemaMismatch, StoreCorrupt, StoreFull
from cli.care.backup import backup
from cli.terminal.failure import CommandFailed, Exit
from cli.terminal.long_work import LongWork
from tests.support.messages import message, numbered
from tests.support.sqlite import change, opened
from tests.support.stores import read_all


@pytest.fixture
async def data_dir(tmp_path: Path) -> Path:
    """Of 3,000 messages."""
    directory = tmp_path / "data"
    directory.mkdir()
    async with opened(directory / "pubsub.db") as store:
        await store.append(numbered(3000))
    return directory


def others(data_dir: Path) -> list[str]:
    """The files beside the data directory."""
    return [file.name for file in data_dir.parent.iterdir() if file != data_dir]


async def test_a_backup_is_a_log(data_dir: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = data_dir.parent / "copy.db"
    backup(data_dir, file)
    out, err = capfd.readouterr()
    assert out.startswith(f"{file}: 3,000 messages, verified, 0.")
    assert (out.count("\n"), err) == (1, "")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert {f.name for f in data_dir.iterdir()} == {"pubsub.db", "pubsub.db-note"}  # noqa: ASYNC240
    async with opened(file) as store:
        assert len(await read_all(store)) == 3000


def test_a_program_gets_a_record(data_dir: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = data_dir.parent / "copy.db"
    backup(data_dir, file, json=True)
    record = json.loads(capfd.readouterr().out)
    assert record.pop("seconds") > 0
    assert record == {
        "backup": str(file),
        "messages": 3000,
        "online": False,
        "bytes": file.stat().st_size,
    }


def test_what_is_there_is_not_overwritten(data_dir: Path) -> None:
    file = data_dir.parent / "mine"
    file.write_text("mine")
    with pytest.raises(CommandFailed, match="is there already; name another file"):
        backup(data_dir, file)
    assert file.read_text() == "mine"
    with pytest.raises(CommandFailed, match="is a directory; name a file in it"):
        backup(data_dir, data_dir)
    with pytest.raises(CommandFailed, match="there is no directory"):
        backup(data_dir, data_dir.parent / "nowhere" / "copy.db")


def test_of_a_damaged_log_no_backup_is_made(data_dir: Path) -> None:
    """Or it might take the place of a good one."""
    change(data_dir / "pubsub.db", "UPDATE messages SET payload = x'00' WHERE offset = 7")
    with pytest.raises(StoreCorrupt, match=r"is damaged, so .*copy\.db was not made: .*offset 7"):
        backup(data_dir, data_dir.parent / "copy.db")
    assert others(data_dir) == []


async def test_a_name_in_what_is_said_of_damage_cannot_act_on_a_terminal(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    path = tmp_path / "data" / "pubsub.db"
    async with opened(path) as store:
        await store.append([message("x", "\x1b[2J", retain=True)])
    change(path, "DELETE FROM retained_names")
    with pytest.raises(StoreCorrupt, match=r"by its name \(\\x1b\[2J\)"):
        backup(tmp_path / "data", tmp_path / "copy.db")


def test_where_no_log_is_that_is_said(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match="no log at") as failed:
        backup(tmp_path, tmp_path / "copy.db")
    assert failed.value.code is Exit.NOTHING_THERE


def test_a_newer_log_is_refused(data_dir: Path) -> None:
    change(data_dir / "pubsub.db", "PRAGMA user_version = 99")
    with pytest.raises(SchemaMismatch, match="from a newer pubsub"):
        backup(data_dir, data_dir.parent / "copy.db")


def test_how_much_room_it_needs_is_said_before(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(CommandFailed, match=r"this needs 0\.\d MB in .*, and 0\.0 MB are free"):
        backup(data_dir, data_dir.parent / "copy.db")
    assert others(data_dir) == []


def test_a_disk_that_gets_full_leaves_nothing(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = sqlite3.connect

    def small(path: str, *rest: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(path, *rest, **options)
        if "partial" in path:
            connection.execute("PRAGMA max_page_count = 20")
        return connection

    monkeypatch.setattr("sqlite3.connect", small)
    with pytest.raises(StoreFull, match=r"copy\.db: no space left"):
        backup(data_dir, data_dir.parent / "copy.db")
    assert others(data_dir) == []


@pytest.mark.parametrize("when", ["copy", "verify"])
def test_ctrl_c_leaves_nothing(data_dir: Path, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    step = LongWork.step

    def interrupted(work: LongWork, done: int, total: int, **options: Any) -> None:
        if (when == "verify") == ("doing" in options):
            signal.raise_signal(signal.SIGINT)
        step(work, done, total, **options)

    monkeypatch.setattr(LongWork, "step", interrupted)
    with pytest.raises(CommandFailed, match=r"interrupted: .*copy\.db was not made"):
        backup(data_dir, data_dir.parent / "copy.db")
    assert others(data_dir) == []
