"""`pubsub restore`: a backup in an empty data directory, or in the place of a log."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path

import pytest

from broker.errors import StoreCorrupt
from broker.store.sqlite.gaps import OFFSETS_LOST_MAX
from broker.store.sqlite.repair.note import note_path
from cli.care.backup import backup
from cli.care.restore import restore
from cli.terminal.failure import CommandFailed, Exit
from tests.support import old_schemas
from tests.support.messages import message, numbered
from tests.support.sqlite import change, opened, problems
from tests.support.stores import read_all


@pytest.fixture
async def file(tmp_path: Path) -> Path:
    """A backup of 3,000 messages; the log beside it has gone on to 4,000."""
    directory = tmp_path / "data"
    directory.mkdir()
    async with opened(directory / "pubsub.db") as store:
        await store.append(numbered(3000))
    backup(directory, tmp_path / "copy.db")
    async with opened(directory / "pubsub.db") as store:
        await store.append(numbered(1000, first=3001))
    return tmp_path / "copy.db"


async def next_offset(path: Path) -> int:
    async with opened(path) as store:
        assert len(await read_all(store)) == 3000
        later = [message("later")]
        await store.append(later)
        return later[0].offset


def names(directory: Path) -> list[str]:
    return sorted(file.name for file in directory.iterdir() if file.name != "broker.lock")


async def test_into_a_new_directory(file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    directory = file.parent / "new" / "data"
    restore(file, directory)
    out, _ = capfd.readouterr()
    assert "3,000 messages, verified" in out.splitlines()[-1]
    assert names(directory) == ["pubsub.db"]
    assert problems(directory / "pubsub.db", at_rest=True) == []
    assert await next_offset(directory / "pubsub.db") > 4000


async def test_a_log_that_is_there_stays_unless_it_is_to_be_replaced(
    file: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    directory = file.parent / "data"
    path = directory / "pubsub.db"
    before = path.read_bytes()
    with pytest.raises(CommandFailed, match=r"there is a log in .* already; --replace sets it"):
        restore(file, directory)
    assert path.read_bytes() == before
    capfd.readouterr()
    restore(file, directory, replace=True, json=True)
    record = json.loads(capfd.readouterr().out)
    assert (record["restored"], record["messages"]) == (str(path), 3000)
    aside = Path(record["set_aside"])
    assert aside.read_bytes() == before  # noqa: ASYNC240
    assert names(directory) == ["pubsub.db", aside.name, f"{aside.name}-note"]
    assert await next_offset(path) > 4000 + OFFSETS_LOST_MAX
    async with opened(aside) as store:
        assert len(await read_all(store)) == 4000


@pytest.mark.parametrize("empty", [True, False])
async def test_where_the_log_is_gone_nothing_has_to_be_set_aside(
    file: Path, capfd: pytest.CaptureFixture[str], *, empty: bool
) -> None:
    """And the offsets that it had given out are known from its note. (P2)"""
    directory = file.parent / "data"
    path = directory / "pubsub.db"
    path.unlink()
    if empty:
        path.touch()
    restore(file, directory)
    assert "kept as" not in capfd.readouterr().out
    assert names(directory) == ["pubsub.db"]
    assert await next_offset(path) > 4000 + OFFSETS_LOST_MAX


async def test_no_offset_of_the_log_before_is_given_again_however_far_it_was(file: Path) -> None:
    directory = file.parent / "data"
    path = directory / "pubsub.db"
    change(path, "UPDATE sqlite_sequence SET seq = 50000000 WHERE name = 'messages'")
    restore(file, directory, replace=True)
    assert await next_offset(path) > 50_000_000


async def test_a_damaged_log_is_replaced_too_and_it_is_said_what_is_not_known(
    file: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    directory = file.parent / "data"
    path = directory / "pubsub.db"
    path.write_bytes(b"\xff" * 8192)
    note_path(path).unlink()
    restore(file, directory, replace=True)
    assert "had given out cannot be read" in capfd.readouterr().err
    assert await next_offset(path) > OFFSETS_LOST_MAX


def test_a_damaged_backup_changes_nothing(file: Path) -> None:
    directory = file.parent / "data"
    change(file, "UPDATE messages SET payload = x'00' WHERE offset = 7")
    before = (directory / "pubsub.db").read_bytes()
    with pytest.raises(StoreCorrupt, match=r"copy\.db is damaged, so .* was not made: .*offset 7"):
        restore(file, directory, replace=True)
    assert (directory / "pubsub.db").read_bytes() == before
    assert names(directory) == ["pubsub.db", "pubsub.db-note"]


@pytest.mark.parametrize("version", [1, 4, 7])
async def test_a_backup_of_an_earlier_schema_is_brought_up_to_date(
    tmp_path: Path, version: int
) -> None:
    written = old_schemas.make(tmp_path / "old.db", version)
    restore(tmp_path / "old.db", tmp_path / "data")
    async with opened(tmp_path / "data" / "pubsub.db") as store:
        assert await read_all(store) == written
    backup(tmp_path / "data", tmp_path / "new.db")


def test_a_broker_has_to_be_stopped_first(file: Path) -> None:
    directory = file.parent / "data"
    with (directory / "broker.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(CommandFailed, match=r"a broker is running on .*; stop it with"):
            restore(file, directory, replace=True)


def test_no_backup_and_the_log_itself_are_refused(file: Path) -> None:
    directory = file.parent / "data"
    with pytest.raises(CommandFailed, match="no backup at") as failed:
        restore(directory / "copy.db", directory)
    assert failed.value.code is Exit.NOTHING_THERE
    with pytest.raises(CommandFailed, match=r"is the log of .* itself"):
        restore(directory / "pubsub.db", directory, replace=True)
