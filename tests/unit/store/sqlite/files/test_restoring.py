"""What is known of a log in whose place another is put, and where its files go."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from broker.errors import StoreCorrupt
from broker.store.sqlite.files.restoring import forget_note, is_there, newest_offset, set_aside
from broker.store.sqlite.offsets import RESERVED_AT_ONCE
from broker.store.sqlite.repair.note import note_path
from tests.support.messages import numbered
from tests.support.sqlite import opened
from tests.support.stores import read_all


async def left_by_a_kill(directory: Path) -> Path:
    (directory / "run").mkdir()
    async with opened(directory / "run" / "pubsub.db") as store:
        for sent in numbered(50):
            await store.append([sent])
        shutil.copytree(directory / "run", directory / "left")
    return directory / "left" / "pubsub.db"


def content(path: Path) -> bytes:
    return path.read_bytes()


def remove(path: Path) -> None:
    path.unlink()


async def test_the_newest_offset_is_known_also_where_the_write_ahead_log_is_gone(
    tmp_path: Path,
) -> None:
    path = await left_by_a_kill(tmp_path)
    assert newest_offset(path) == RESERVED_AT_ONCE - 1, "reserved"
    remove(Path(f"{path}-wal"))
    assert newest_offset(path) == 50  # It was noted.
    remove(note_path(path))
    assert newest_offset(path) in (0, None)


def test_of_a_file_that_is_no_log_nothing_is_known(tmp_path: Path) -> None:
    (tmp_path / "pubsub.db").write_bytes(b"hello" * 1000)
    assert newest_offset(tmp_path / "pubsub.db") is None


@pytest.mark.parametrize("links", [True, False])
async def test_what_is_set_aside_is_a_log_still(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, links: bool
) -> None:
    path = await left_by_a_kill(tmp_path)

    def no_link(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    if not links:
        monkeypatch.setattr(os, "link", no_link)
    aside = set_aside(path)
    assert path.exists() is links
    other = tmp_path / "other.db"
    async with opened(other):
        pass
    other.replace(path)
    forget_note(path, aside)
    assert sorted(file.name for file in path.parent.iterdir()) == [
        *("pubsub.db", aside.name, f"{aside.name}-note", f"{aside.name}-shm", f"{aside.name}-wal"),
    ]
    async with opened(aside) as store:
        assert len(await read_all(store)) == 50


async def test_a_crash_while_it_is_set_aside_does_not_start_with_half_of_it(
    tmp_path: Path,
) -> None:
    path = await left_by_a_kill(tmp_path)
    set_aside(path)
    with pytest.raises(StoreCorrupt, match=r"write-ahead log .* is missing"):
        async with opened(path):
            pass


def test_a_note_or_an_empty_file_alone_is_no_log(tmp_path: Path) -> None:
    path = tmp_path / "pubsub.db"
    for suffix in ("", "-note"):
        Path(f"{path}{suffix}").touch()
        assert not is_there(path)
    path.write_bytes(b"pages")
    assert is_there(path)
    path.unlink()
    Path(f"{path}-wal").touch()
    assert is_there(path)
