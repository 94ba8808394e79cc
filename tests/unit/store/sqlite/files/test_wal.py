"""The write-ahead log as SQLite writes it: what is whole, where it breaks, what is behind."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from broker.store.sqlite.files.wal import Wal, read_index, read_wal

FRAME = 24 + 4096


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(tmp_path / "a.db", isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = wal").fetchall()
        connection.execute("PRAGMA wal_autocheckpoint = 0").fetchall()
        connection.execute("CREATE TABLE t (a)")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        yield connection


@pytest.fixture
def wal(tmp_path: Path) -> Path:
    return tmp_path / "a.db-wal"


def write(connection: sqlite3.Connection, commits: int) -> None:
    """Each commit is one frame."""
    for _ in range(commits):
        connection.execute("INSERT INTO t VALUES (1)")


def flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def found(wal: Path) -> tuple[int, int, int]:
    read = read_wal(wal)
    return read.frames, read.committed, read.commits_behind


def test_what_is_whole_is_all_committed(connection: sqlite3.Connection, wal: Path) -> None:
    write(connection, 10)
    assert found(wal) == (10, 10, 0)
    assert read_wal(wal).unused == 0


def test_no_file_and_an_empty_one_hold_nothing(connection: sqlite3.Connection, wal: Path) -> None:
    assert read_wal(wal) == read_wal(wal.with_name("none")) == Wal()


def test_a_transaction_that_did_not_end_is_not_committed(
    connection: sqlite3.Connection, wal: Path
) -> None:
    write(connection, 2)
    connection.execute("PRAGMA cache_size = 1")
    connection.execute("BEGIN")
    for _ in range(50):
        connection.execute("INSERT INTO t VALUES (zeroblob(9000))")
    read = read_wal(wal)
    assert read.frames > 100
    assert (read.committed, read.commits_behind) == (2, 0)
    connection.execute("ROLLBACK")


@pytest.mark.parametrize("place", [0, 4, 8, 16, 24, 100, FRAME - 1])
def test_a_changed_bit_breaks_it_there(
    connection: sqlite3.Connection, wal: Path, place: int
) -> None:
    write(connection, 10)
    flip(wal, 32 + 4 * FRAME + place)
    frames, committed, commits_behind = found(wal)
    assert (committed, commits_behind) == (4, 5)
    assert frames == (10 if place not in (8, 12) else 9)


@pytest.mark.parametrize("place", range(0, 32, 3))
def test_a_changed_bit_in_the_header_breaks_all(
    connection: sqlite3.Connection, wal: Path, place: int
) -> None:
    write(connection, 3)
    flip(wal, place)
    assert found(wal) == (3, 0, 3)
    assert read_wal(wal).salts == b""


def test_the_last_frame_has_nothing_behind_it(connection: sqlite3.Connection, wal: Path) -> None:
    write(connection, 3)
    flip(wal, 32 + 3 * FRAME - 1)
    assert found(wal) == (3, 2, 0)


def test_what_an_earlier_filling_left_does_not_count(
    connection: sqlite3.Connection, wal: Path
) -> None:
    write(connection, 10)
    before = read_wal(wal).salts
    connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
    write(connection, 3)
    assert wal.stat().st_size == 32 + 10 * FRAME
    assert found(wal) == (3, 3, 0)
    first, later = (int.from_bytes(salts[:4], "big") for salts in (before, read_wal(wal).salts))
    assert later == (first + 1) % (1 << 32)


def test_a_half_written_frame_is_none(connection: sqlite3.Connection, wal: Path) -> None:
    write(connection, 3)
    with wal.open("ab") as file:
        file.write(bytes(100))
    assert found(wal) == (3, 3, 0)


def test_the_index_knows_how_many_frames_are_committed_and_in_the_database(
    connection: sqlite3.Connection, wal: Path, tmp_path: Path
) -> None:
    write(connection, 5)
    index = tmp_path / "a.db-shm"
    known = read_index(index)
    assert known is not None
    assert (known.salts, known.committed, known.in_database) == (read_wal(wal).salts, 5, 0)
    connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
    known = read_index(index)
    assert known is not None
    assert (known.committed, known.in_database) == (5, 5)


def test_an_index_that_is_not_whole_is_none(connection: sqlite3.Connection, tmp_path: Path) -> None:
    write(connection, 5)
    copy = tmp_path / "copy"
    copy.write_bytes((tmp_path / "a.db-shm").read_bytes())
    flip(copy, 16)
    assert read_index(copy) is not None, "it has two copies"
    flip(copy, 48 + 16)
    assert read_index(copy) is None
    copy.write_bytes(b"short")
    assert read_index(copy) is None
    assert read_index(tmp_path / "none") is None
