"""Which pages are left of a log, and which of them SQLite would use."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from broker.store.sqlite.files.schema import migrations
from broker.store.sqlite.repair.remains import Remains
from tests.support.messages import numbered
from tests.support.sqlite import opened

PAGE, FRAME = 4096, 4096 + 24


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    """Left by a kill: the database, and messages in its write-ahead log."""
    (tmp_path / "run").mkdir()
    async with opened(tmp_path / "run" / "pubsub.db") as store:
        for sent in numbered(20):
            await store.append([sent])
        shutil.copytree(tmp_path / "run", tmp_path / "left")
    return tmp_path / "left" / "pubsub.db"


def images(path: Path) -> list[bytes | None]:
    with closing(Remains(path)) as remains:
        found = [content for _, content in remains.images()]
        assert len(found) == remains.count
        return found


def test_what_sqlite_would_use_comes_first_and_what_that_hides_last(path: Path) -> None:
    shutil.copytree(path.parent, path.parent.parent / "folded")
    folded = path.parent.parent / "folded" / "pubsub.db"
    with closing(sqlite3.connect(folded)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    whole = folded.read_bytes()
    pages = [whole[at : at + PAGE] for at in range(0, len(whole), PAGE)]
    found = images(path)
    assert found[: len(pages)] == pages
    old = path.read_bytes()
    hidden = [old[at : at + PAGE] for at in range(0, len(old), PAGE)]
    assert {*found[len(pages) :]} <= {*hidden}


def test_the_schema_and_the_tables_are_those_of_the_newest_commit(path: Path) -> None:
    with closing(Remains(path)) as remains:
        assert remains.version == len(migrations())
        roots = remains.roots()
    with closing(sqlite3.connect(path)) as connection:
        sql = "SELECT name, rootpage FROM sqlite_schema WHERE type = 'table'"
        assert roots == dict(connection.execute(sql))


def test_frames_behind_a_break_are_there_as_far_as_a_commit_ends_them(path: Path) -> None:
    wal = Path(f"{path}-wal")
    content = bytearray(wal.read_bytes())
    frames = (len(content) - 32) // FRAME
    content[32 + FRAME * (frames // 2) + 100] ^= 1
    wal.write_bytes(content)
    found = images(path)
    behind = [content[32 + FRAME * n + 24 : 32 + FRAME * (n + 1)] for n in range(frames)]
    assert {bytes(frame) for frame in behind[frames // 2 :]} <= {*found}


def test_a_log_of_which_nothing_is_left_has_no_pages(tmp_path: Path) -> None:
    with closing(Remains(tmp_path / "pubsub.db")) as remains:
        assert (remains.count, remains.version, remains.roots()) == (0, 0, {})
    (tmp_path / "pubsub.db").write_bytes(b"hello" * 1000)
    with closing(Remains(tmp_path / "pubsub.db")) as remains:
        assert remains.roots() == {}


def test_what_the_disk_cannot_read_is_no_page_and_the_others_are(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = images(path)
    pread = os.pread

    def failing(descriptor: int, size: int, position: int) -> bytes:
        if position <= PAGE:
            raise OSError(errno.EIO, "Input/output error")
        return pread(descriptor, size, position)

    monkeypatch.setattr(os, "pread", failing)
    found = images(path)
    assert len(found) == len(whole)
    assert 1 <= found.count(None) <= 5
    assert all(now in (None, before) for now, before in zip(found, whole, strict=True))
