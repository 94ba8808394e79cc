"""The note beside the database: what it keeps, and whose it is."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.message import Offset
from broker.store.sqlite.repair.note import Note, Noted, note_path, read_note

SALTS = bytes([0, 0, 0, 9, 1, 2, 3, 4])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "data" / "pubsub.db"
    path.parent.mkdir()
    path.write_bytes(b"pages")
    Path(f"{path}-wal").write_bytes(bytes(16) + SALTS)
    return path


@pytest.fixture
def note(path: Path) -> Iterator[Note]:
    note = Note(path, Offset(7), "this boot")
    yield note
    note.close()


def noted(path: Path) -> Noted:
    found = read_note(path)
    assert found is not None
    return found


@pytest.mark.usefixtures("note")
def test_it_says_at_once_what_the_run_began_with(path: Path) -> None:
    found = noted(path)
    assert (found.high_watermark, found.boot_id) == (7, "this boot")
    assert abs(found.at_us - note_path(path).stat().st_mtime_ns / 1000) < 1_000_000
    assert found.is_of(path)
    assert stat.S_IMODE(note_path(path).stat().st_mode) == 0o600


def test_it_follows_the_high_watermark(path: Path, note: Note) -> None:
    for offset in (8, 1 << 40, (1 << 63) - 1):
        note.moved(Offset(offset))
        assert noted(path).high_watermark == offset
    assert noted(path).is_of(path)


def test_another_file_or_a_written_one_is_not_the_same_database(path: Path, note: Note) -> None:
    os.utime(path, ns=(1, 1))
    assert not noted(path).is_of(path)
    note.writing_database()
    assert noted(path).is_of(path), "it was being written to"
    note.database_written()
    assert noted(path).is_of(path)
    path.rename(path.with_name("other"))
    shutil.copy2(path.with_name("other"), path)
    assert not noted(path).is_of(path)


@pytest.mark.usefixtures("note")
def test_in_a_copy_of_the_directory_every_database_counts_as_the_same(path: Path) -> None:
    copy = path.parent.with_name("copy")
    shutil.copytree(path.parent, copy)
    assert noted(copy / path.name).is_of(copy / path.name)


def test_the_write_ahead_log_is_known_by_its_salts(path: Path, note: Note) -> None:
    def salts(first: int) -> bytes:
        return first.to_bytes(4, "big") + b"abcd"

    note.moved(Offset(8))
    found = noted(path)
    assert [found.is_with(salts(first)) for first in (8, 9, 10, 25, 26)] == [
        False, True, True, True, False,
    ]  # fmt: skip
    assert found.is_with(b""), "it has none yet"
    Path(f"{path}-wal").write_bytes(bytes(16) + salts(0xFFFF_FFFF))
    note.database_written()
    note.moved(Offset(9))
    assert noted(path).is_with(salts(0)), "it starts over"


@pytest.mark.parametrize("content", [b"", b"\0" * 512, b"1 2\n{}\n", b"1\n\n", b"\xff\n[]\n"])
def test_what_a_power_cut_left_of_it_is_no_note(path: Path, content: bytes) -> None:
    note_path(path).write_bytes(content)
    assert read_note(path) is None


def test_a_clean_stop_is_noted(path: Path, note: Note) -> None:
    assert not noted(path).stopped
    note.moved(Offset(9))
    note.stopped()
    assert (noted(path).high_watermark, noted(path).stopped) == (9, True)
    again = Note(path, Offset(9), "this boot")
    assert not noted(path).stopped, "another run has begun"
    again.close()


def test_that_of_a_copy_is_removed_at_a_clean_stop(path: Path) -> None:
    note = Note(path, Offset(7), "this boot", is_copy=True)
    note.stopped()
    note.close()
    note.close()
    assert read_note(path) is None


def test_that_it_cannot_be_written_is_said_and_hinders_nothing(
    path: Path, note: Note, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(os, "pwrite", fail)
        note.moved(Offset(9))
        note.moved(Offset(10))
    assert caplog.text.count("pubsub.db-note cannot be written: [Errno 28]") == 1
    note.moved(Offset(11))
    assert noted(path).high_watermark == 11
