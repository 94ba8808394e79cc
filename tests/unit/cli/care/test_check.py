"""`pubsub check` on databases that the store wrote, and on damaged ones."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from broker.errors import SchemaMismatch, StoreUnavailable
from broker.store.sqlite.files.wal import WAL_SUFFIX
from broker.store.sqlite.repair.note import note_path
from cli.care import check as module
from cli.care.check import check
from cli.care.restore import restore
from cli.terminal.failure import CommandFailed, Exit
from tests.support import old_schemas
from tests.support.messages import numbered
from tests.support.sqlite import change, opened


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    """Of 3,000 messages."""
    path = tmp_path / "pubsub.db"
    async with opened(path) as store:
        await store.append(numbered(3000))
    return path


def copied(directory: Path, to: Path) -> Path:
    shutil.copytree(directory, to)
    return to


def test_a_sound_log_is_one_line(path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = path.read_bytes()
    check(path)
    out, err = capfd.readouterr()
    assert out.startswith(f"{path} is sound: 3,000 messages, 0.")
    assert out.endswith("MB/s)\n")
    assert err == ""
    assert path.read_bytes() == before
    assert {*path.parent.iterdir()} == {path, note_path(path)}


def test_a_program_gets_a_record(path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    check(path, json=True)
    record = json.loads(capfd.readouterr().out)
    assert record["seconds"] > 0
    assert record["mb_per_s"] > 0
    assert {name: record[name] for name in list(record)[:6]} == {
        "checked": str(path),
        "problems": 0,
        "messages": 3000,
        "log_start": 1,
        "high_watermark": 3000,
        "online": False,
    }


async def test_an_empty_log_is_sound(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    async with opened(tmp_path / "pubsub.db"):
        pass
    check(tmp_path / "pubsub.db")
    assert "is sound: 0 messages" in capfd.readouterr().out


def test_each_problem_is_a_line_and_the_end_is_74(
    path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    change(path, "DELETE FROM messages WHERE offset IN (7, 8)", "UPDATE messages SET qos = 2")
    with pytest.raises(CommandFailed, match=r"is damaged: [0-9,]+ problems") as failed:
        check(path)
    assert failed.value.code is Exit.STORE_DAMAGED
    assert "the messages at the offsets 1 to 1023 cannot be read" in capfd.readouterr().out


def test_problems_are_records_for_a_program(path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    change(path, "UPDATE messages SET qos = 2 WHERE offset IN (7, 8)")
    with pytest.raises(CommandFailed, match="1 problem;"):
        check(path, json=True)
    problem, summary = map(json.loads, capfd.readouterr().out.splitlines())
    said = "the messages at the offsets 7 to 8 cannot be read"
    assert problem == {"problem": said, "first": 7, "last": 8}
    assert (summary["problems"], summary["messages"]) == (1, 2998)


def test_people_are_shown_a_hundred_problems_and_told_how_many_there_are(
    path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    change(path, "UPDATE messages SET qos = 2 WHERE offset % 10 = 0")
    with pytest.raises(CommandFailed, match="300 problems"):
        check(path)
    assert len(capfd.readouterr().out.splitlines()) == module.LISTED_MAX


def test_a_directory_that_may_not_be_written_to_is_enough(
    path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path.chmod(0o400)
    path.parent.chmod(0o500)
    try:
        check(path)
    finally:
        path.parent.chmod(0o700)
    assert "is sound" in capfd.readouterr().out


async def test_what_an_unclean_stop_has_lost_is_a_problem(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The files of a broker as a kill leaves them, but without the write-ahead log."""
    async with opened(tmp_path / "pubsub.db") as store:
        await store.append(numbered(10))
        path = copied(tmp_path, tmp_path / "left") / "pubsub.db"
    Path(f"{path}{WAL_SUFFIX}").unlink()  # noqa: ASYNC240
    with pytest.raises(CommandFailed, match="is damaged: 1 problem"):
        check(path)
    assert "its write-ahead log pubsub.db-wal is missing" in capfd.readouterr().out


def test_damage_that_hides_the_tables_is_a_problem(
    path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with path.open("r+b") as file:
        file.seek(100)
        file.write(bytes(3000))
    with pytest.raises(CommandFailed, match="is damaged: 1 problem"):
        check(path)
    assert "malformed" in capfd.readouterr().out


def test_a_disk_that_cannot_read_is_not_called_damage(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(path, "UPDATE messages SET qos = 2 WHERE offset = 7")
    failure = StoreUnavailable("the disk fails")
    monkeypatch.setattr(module, "disk_failure", lambda _: failure)
    with pytest.raises(StoreUnavailable, match="the disk fails"):
        check(path)


def test_another_schema_is_refused(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(SchemaMismatch, match="from a newer pubsub"):
        check(path)


def test_where_no_log_is_that_is_said(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match="no log at") as failed:
        check(tmp_path / "pubsub.db")
    assert failed.value.code is Exit.NOTHING_THERE
    assert f"pubsub broker start --data-dir {tmp_path};" in str(failed.value)
    with pytest.raises(CommandFailed, match=r"no log at .*copy\.db$"):
        check(tmp_path / "copy.db")


def foreign(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE places (bookmark TEXT)")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (
            lambda file: file.write_text("hello\n" * 1000),
            "is not an SQLite database; choose a backup",
        ),
        (lambda file: file.write_bytes(b""), "is an empty database; choose a backup"),
        (foreign, "is the database of another program; choose a backup"),
    ],
    ids=["text", "empty", "foreign"],
)
@pytest.mark.parametrize("command", [check, restore])
def test_what_is_said_of_a_file_that_is_no_log_fits_a_file(
    tmp_path: Path, command: Callable[..., None], make: Callable[[Path], None], said: str
) -> None:
    file = tmp_path / "notes.db"
    make(file)
    with pytest.raises(SchemaMismatch, match=said) as caught:
        command(*([file] if command is check else [file, tmp_path / "data"]))
    assert "directory" not in str(caught.value)
    file = file.rename(tmp_path / "pubsub.db")
    with pytest.raises(SchemaMismatch, match=r"another data directory|start the broker on it once"):
        check(file)


def test_a_backup_of_an_earlier_schema_says_how_it_is_brought_up_to_date(tmp_path: Path) -> None:
    old_schemas.make(tmp_path / "old.db", 7)
    with pytest.raises(SchemaMismatch, match="not up to date; `pubsub restore` brings it"):
        check(tmp_path / "old.db")
