"""What an unclean stop left: damage is noticed, and what only looks like it is not taken for it."""

# ruff: noqa: ASYNC240 (the tests wait for nothing but what they damage)

from __future__ import annotations

import os
import random
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from broker.errors import StoreCorrupt, StoreError
from broker.message import Offset
from broker.store.sqlite.files import opening
from broker.store.sqlite.gaps import OFFSETS_LOST_MAX
from broker.store.sqlite.repair.note import note_path
from tests.support import flips
from tests.support.messages import message, numbered
from tests.support.sqlite import opened, problems
from tests.support.stores import read_all
from tests.support.trials import trials

pytestmark = pytest.mark.long

ACKNOWLEDGED = 300

CHILD = """
import asyncio, os, signal, sys
from pathlib import Path
from broker.message import Message
from broker.store.sqlite.store import SqliteStore

async def main():
    store = SqliteStore(Path(sys.argv[1]))
    await store.open()
    commits, size = int(sys.argv[2]), int(sys.argv[3])
    for i in range(0, commits * size, size):
        await store.append(
            [Message(f"t/{n % 7}", b"%d" % n, 1, False, "pub1", n + 1) for n in range(i, i + size)]
        )
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


def kill_after(path: Path, commits: int, size: int = 1) -> None:
    """A broker that is killed when it has acknowledged so many commits of `size` messages each."""
    arguments = [str(path), str(commits), str(size)]
    subprocess.run([sys.executable, "-c", CHILD, *arguments], check=False)


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory that a kill left after 300 acknowledgements. Not to be changed."""
    directory = tmp_path_factory.mktemp("killed")
    kill_after(directory / "pubsub.db", ACKNOWLEDGED)
    return directory


@pytest.fixture
def path(killed: Path, tmp_path: Path) -> Path:
    """The database in a copy of that directory."""
    shutil.copytree(killed, tmp_path / "data")
    return tmp_path / "data" / "pubsub.db"


def wal_of(path: Path) -> Path:
    return Path(f"{path}-wal")


async def high_watermark(path: Path) -> int:
    """Where a broker that is started on it goes on, having given out one more offset."""
    async with opened(path) as store:
        before = store.high_watermark
        only = message()
        await store.append([only])
        assert only.offset > ACKNOWLEDGED + OFFSETS_LOST_MAX
        return before


async def refused(path: Path) -> str:
    """What is said of it, and nothing is changed by that."""
    files = {name: Path(f"{path}{name}") for name in ("", "-wal", "-note")}
    before = {name: file.read_bytes() for name, file in files.items() if file.exists()}
    with pytest.raises(StoreCorrupt) as caught:
        async with opened(path):
            pass
    assert before == {name: file.read_bytes() for name, file in files.items() if file.exists()}
    assert "--accept-loss" in str(caught.value)
    return str(caught.value)


async def started_with_loss(path: Path) -> int:
    """How many messages are left. No offset is given twice, and what is there is sound."""
    async with opened(path, accept_loss=True) as store:
        left = len(await read_all(store))
        only = message()
        await store.append([only])
        assert only.offset > ACKNOWLEDGED + OFFSETS_LOST_MAX
        assert problems(store.path) == []
    async with opened(path) as store:
        assert len(await read_all(store)) == left + 1
    return left


# Damage


async def test_nothing_is_missing_after_a_kill(path: Path) -> None:
    assert await high_watermark(path) == ACKNOWLEDGED


async def test_a_flipped_bit_anywhere_is_noticed(path: Path) -> None:
    """Never fewer messages without a word, and never an offset twice."""
    source = random.Random(7)
    intact = wal_of(path).read_bytes()
    frame = 24 + 4096
    last = len(intact) - frame  # The last frame: nothing is behind it that would show.
    places = [0, 3, 9, 17, 25, last + 1, last + 5, last + 9, last + 20, last + 400, len(intact) - 1]
    places += [source.randrange(len(intact)) for _ in range(trials(15))]
    for place in places:
        damaged = bytearray(intact)
        damaged[place] ^= 1 << source.randrange(8)
        wal_of(path).write_bytes(damaged)
        said = await refused(path)
        assert "damaged after frame" in said or "ends too early" in said, place


@pytest.mark.parametrize("keep", [0, 20, 32, 40, 32 + 4120, 0.25, 0.5, 0.99])
@pytest.mark.parametrize("without", ["", "-shm"])
async def test_a_write_ahead_log_that_was_cut_short_is_noticed(
    path: Path, keep: float, without: str
) -> None:
    size = wal_of(path).stat().st_size
    os.truncate(wal_of(path), int(keep * size) if 0 < keep < 1 else int(keep))
    if without:
        Path(f"{path}{without}").unlink()
    said = await refused(path)
    first = re.search(r"offsets (\d+) to 300 are missing", said)
    assert first is not None
    assert await started_with_loss(path) == int(first[1]) - 1


@pytest.mark.parametrize("without", ["", "-shm"])
async def test_a_missing_write_ahead_log_is_noticed(path: Path, without: str) -> None:
    wal_of(path).unlink()
    Path(f"{path}-shm").unlink(missing_ok=without == "-shm")
    assert "offsets 1 to 300 are missing, published until 20" in await refused(path)
    assert await started_with_loss(path) == 0


@pytest.mark.parametrize("empty", [True, False])
async def test_a_database_that_is_gone_from_its_write_ahead_log_is_noticed(
    path: Path, empty: bool
) -> None:
    path.unlink()
    if empty:
        path.touch()
    said = await refused(path)
    assert "the database is missing or empty, and there is pubsub.db-wal" in said
    assert path.exists() is empty
    assert await started_with_loss(path) == 0
    assert [*path.parent.glob("pubsub.db-wal.damaged-*")]


async def test_a_database_that_is_gone_with_its_write_ahead_log_is_noticed(path: Path) -> None:
    path.unlink()
    wal_of(path).unlink()
    assert "the database is missing or empty; offsets 1 to 300" in await refused(path)


@pytest.mark.parametrize("without", ["", "-shm"])
async def test_the_write_ahead_log_of_another_broker_is_noticed(
    path: Path, tmp_path: Path, without: str
) -> None:
    other = tmp_path / "other.db"
    kill_after(other, ACKNOWLEDGED)
    wal_of(path).write_bytes(wal_of(other).read_bytes())
    if without:
        Path(f"{path}{without}").unlink()
    said = await refused(path)
    assert "pubsub.db-wal is not the one that its broker wrote" in said
    assert await started_with_loss(path) == 0


async def test_what_can_be_read_before_the_damage_is_kept_and_the_rest_is_kept_aside(
    path: Path,
) -> None:
    damaged = bytearray(wal_of(path).read_bytes())
    damaged[len(damaged) // 2] ^= 1
    wal_of(path).write_bytes(damaged)
    said = await refused(path)
    first = re.search(r"offsets (\d+) to 300 are missing, published since (\S+) until", said)
    assert first is not None
    assert first[2].startswith("1970-01-01T00:00:00.000")
    assert await started_with_loss(path) == int(first[1]) - 1
    (kept,) = path.parent.glob("pubsub.db-wal.damaged-*")
    assert kept.read_bytes() == damaged


async def test_with_a_loss_that_was_accepted_the_figures_of_blocks_still_add_up(
    tmp_path: Path,
) -> None:
    """What is missing is a gap, not damage; and the next messages have figures again."""
    path = tmp_path / "pubsub.db"
    kill_after(path, 40, 100)
    damaged = bytearray(wal_of(path).read_bytes())
    damaged[len(damaged) * 3 // 4] ^= 1
    wal_of(path).write_bytes(damaged)
    async with opened(path, accept_loss=True) as store:
        left = store.high_watermark
        assert 2 * 1024 < left < 4000
        later = [message(str(i), f"t/{i % 7}") for i in range(3000)]
        await store.append(later)
        assert problems(store.path) == []
        for filters in (None, ("t/3",), ("t/+", "rare")):
            messages, missing = await flips.read_everything(store, filters)
            assert missing == []
            counts = [m.offset <= left for m in messages]
            wanted = [n for n in range(left) if filters != ("t/3",) or n % 7 == 3]
            assert counts.count(True) == len(wanted)
            assert counts.count(False) == sum(
                m.topic == "t/3" or filters != ("t/3",) for m in later
            )


async def test_older_pages_do_not_hide_those_that_a_checkpoint_has_copied(path: Path) -> None:
    """All 300 are in the database file, and the log that they came from is broken in the middle."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        for name in (path, wal_of(path)):
            shutil.copy(name, f"{name}.copy")
    for name in (path, wal_of(path)):
        Path(f"{name}.copy").replace(name)
    damaged = bytearray(wal_of(path).read_bytes())
    damaged[len(damaged) // 2] ^= 1
    wal_of(path).write_bytes(damaged)
    await refused(path)
    assert await started_with_loss(path) == ACKNOWLEDGED


async def test_accepting_a_loss_where_there_is_none_changes_nothing(path: Path) -> None:
    async with opened(path, accept_loss=True) as store:
        assert store.high_watermark == ACKNOWLEDGED
    assert not [*path.parent.glob("*.damaged-*")]


async def test_after_a_power_cut_a_break_is_no_damage(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Unsynced frames reach the disk in any order."""
    monkeypatch.setattr(opening, "boot_id", lambda: "another")
    damaged = bytearray(wal_of(path).read_bytes())
    damaged[len(damaged) // 2] ^= 1
    wal_of(path).write_bytes(damaged)
    assert 100 < await high_watermark(path) < 200
    assert re.search(r"left out \d+ frames? of pubsub.db-wal that had not reached", caplog.text)


async def test_what_a_failing_disk_did_not_take_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """P6: the kernel forgets pages that it could not write, and unsynced commits with them."""
    (tmp_path / "data").mkdir()
    async with opened(tmp_path / "data" / "pubsub.db") as store:
        await store.append(numbered(3))
        synced = wal_of(store.path).stat().st_size
        await store.append(numbered(5), durable=False)

        def fail(*_: object) -> int:
            raise sqlite3.OperationalError("disk I/O error")

        monkeypatch.setattr(store._writer, "_insert", fail)
        with pytest.raises(StoreError, match="disk I/O error"):
            await store.append(numbered(1))
        shutil.copytree(store.path.parent, tmp_path / "failed")
    path = tmp_path / "failed" / "pubsub.db"
    os.truncate(wal_of(path), synced)
    async with opened(path) as store:
        assert len(await read_all(store)) == 3
        only = message()
        await store.append([only])
        assert only.offset > 8
    assert "ends at offset 3, and 8 was noted" in caplog.text


async def test_a_write_ahead_log_that_is_gone_is_damage_after_a_power_cut_too(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "boot_id", lambda: "another")
    wal_of(path).unlink()
    assert "pubsub.db-wal is missing" in await refused(path)


# No damage


async def test_a_log_that_was_folded_in_by_a_shell_starts(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM messages").fetchone() == (ACKNOWLEDGED,)
    assert not wal_of(path).exists()
    assert await high_watermark(path) == ACKNOWLEDGED


def vacuumed(path: Path, copy: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"VACUUM INTO '{copy}'")


def copied_with_its_wal(path: Path, copy: Path) -> None:
    shutil.copy(path, copy)
    shutil.copy(wal_of(path), wal_of(copy))


def copied_alone(path: Path, copy: Path) -> None:
    shutil.copy(path, copy)


@pytest.mark.parametrize("back_up", [vacuumed, copied_with_its_wal, copied_alone])
@pytest.mark.parametrize("in_place", [True, False])
async def test_a_restored_backup_starts(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    back_up: Callable[[Path, Path], None],
    in_place: bool,
) -> None:
    """In the place of a newer log that a kill left, with what lay beside that. Offsets go on."""
    (tmp_path / "data").mkdir()
    path, backup = tmp_path / "data" / "pubsub.db", tmp_path / "backup.db"
    async with opened(path) as store:
        await store.append(numbered(40))
    async with opened(path) as store:
        await store.append(numbered(60))
        back_up(path, backup)
    kill_after(path, 200)
    wal_of(path).unlink()
    for source in (backup, wal_of(backup)):
        target = Path(str(source).replace(str(backup), str(path)))
        if source.exists() and in_place:
            shutil.copyfile(source, target)
        elif source.exists():
            source.replace(target)
    async with opened(path) as store:
        assert len(await read_all(store)) == (40 if back_up is copied_alone else 100)
        only = message()
        await store.append([only])
        assert only.offset > 300
    assert "restored backup" in caplog.text


@pytest.mark.parametrize("without_wal", [True, False])
async def test_a_kill_before_the_first_message_starts(path: Path, without_wal: bool) -> None:
    fresh = path.with_name("fresh.db")
    kill_after(fresh, 0)
    assert note_path(fresh).exists()
    if without_wal:
        wal_of(fresh).unlink()
    async with opened(fresh) as store:
        assert store.high_watermark == 0


async def test_a_kill_before_the_first_commit_starts(tmp_path: Path) -> None:
    path = tmp_path / "pubsub.db"
    path.touch()
    async with opened(path) as store:
        assert store.high_watermark == 0


async def test_a_clean_stop_leaves_nothing_to_ask(path: Path) -> None:
    async with opened(path) as store:
        await store.append(numbered(3))
    assert sorted(file.name for file in path.parent.iterdir()) == ["pubsub.db", "pubsub.db-note"]
    async with opened(path) as store:
        assert (await store.stats()).messages == ACKNOWLEDGED + 3


def gone(path: Path) -> None:
    path.unlink()


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def without_a_table(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("VACUUM")
        connection.execute("PRAGMA user_version = 0")


@pytest.mark.parametrize("lose", [gone, emptied, without_a_table])
@pytest.mark.parametrize("trimmed", [False, True])
async def test_a_database_that_is_gone_after_a_clean_stop_is_noticed(
    tmp_path: Path, lose: Callable[[Path], None], *, trimmed: bool
) -> None:
    """P2: a new log would begin at offset 1."""
    path = tmp_path / "pubsub.db"
    async with opened(path) as store:
        await store.append(numbered(300))
        if trimmed:
            await store.trim(Offset(301))
    lose(path)
    there = path.exists()
    said = await refused(path)
    assert "empty; offsets 1 to 300 are missing, published until 20" in said
    assert "`pubsub restore FILE`" in said
    assert path.exists() is there
    assert await started_with_loss(path) == 0
    lose(path)
    assert "empty; offsets 1 to 1048" in await refused(path), "also of the log that was begun"


async def test_a_backup_in_the_place_of_a_log_that_was_stopped_gives_no_offset_twice(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, backup = tmp_path / "pubsub.db", tmp_path / "backup.db"
    async with opened(path) as store:
        await store.append(numbered(100))
    shutil.copy(path, backup)
    async with opened(path) as store:
        await store.append(numbered(200))
    shutil.copy(backup, path)
    async with opened(path) as store:
        assert len(await read_all(store)) == 100
        only = message()
        await store.append([only])
        assert only.offset > ACKNOWLEDGED
    assert "restored backup" in caplog.text


async def test_of_a_database_that_cannot_be_read_only_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "pubsub.db"
    async with opened(path) as store:
        await store.append(numbered(100))
    pages = path.read_bytes()
    path.write_bytes(pages[:4096] + b"\xaa" * (len(pages) - 4096))
    with pytest.raises(StoreCorrupt):
        async with opened(path):
            pass
    assert "restored backup" not in caplog.text


async def test_a_copy_of_another_log_that_is_gone_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "pubsub.db"
    async with opened(path) as store:
        await store.append(numbered(3))
    path.unlink()
    for _ in range(2):
        async with opened(path, is_copy=True) as store:
            assert store.high_watermark == 0
    assert not note_path(path).exists()


async def test_a_note_that_cannot_be_read_is_no_note(path: Path) -> None:
    note_path(path).write_bytes(b"\0" * 512)
    assert await high_watermark(path) == ACKNOWLEDGED


async def test_a_file_of_another_program_gets_no_word_of_loss(tmp_path: Path) -> None:
    path = tmp_path / "pubsub.db"
    path.write_bytes(b"hello" * 1000)
    with pytest.raises(StoreError, match="not an SQLite database"):
        async with opened(path):
            pass
