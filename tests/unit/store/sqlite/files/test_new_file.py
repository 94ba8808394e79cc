"""A database that is made: there whole, or not at all."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest

from broker.errors import StoreInUse
from broker.store.sqlite.files.new_file import PARTIAL, new_file


def make(path: Path, *, replace: bool = False) -> None:
    with new_file(path, (lambda: None) if replace else None) as new:
        assert not path.exists() or replace
        new.connection.execute("CREATE TABLE things (a)")


def test_it_has_its_name_once_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    make(path)
    assert [*tmp_path.iterdir()] == [path]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT * FROM things").fetchall() == []
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt, sqlite3.OperationalError, OSError(28, "full")]
)
def test_what_fails_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    def fail() -> None:
        with new_file(tmp_path / "a.db") as new:
            new.connection.execute("CREATE TABLE things (a)")
            raise error

    with pytest.raises((KeyboardInterrupt, sqlite3.OperationalError, OSError)):
        fail()
    assert [*tmp_path.iterdir()] == []


def test_what_is_there_is_replaced_only_where_that_is_wanted(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    path.write_text("mine")
    with pytest.raises(FileExistsError):
        make(path)
    assert path.read_text() == "mine"
    make(path, replace=True)
    assert path.read_bytes().startswith(b"SQLite format 3")
    assert [*tmp_path.iterdir()] == [path]


def test_what_a_kill_left_is_in_nobodys_way(tmp_path: Path) -> None:
    (tmp_path / f"a.db{PARTIAL}").write_bytes(b"half" * 10_000)
    make(tmp_path / "a.db")
    assert [*tmp_path.iterdir()] == [tmp_path / "a.db"]


def test_two_do_not_make_the_same_file(tmp_path: Path) -> None:
    partial = tmp_path / f"a.db{PARTIAL}"
    with partial.open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(StoreInUse, match="being made by another command"):
            make(tmp_path / "a.db")
    assert partial.exists()


@pytest.mark.parametrize(("replace", "owned"), [(True, [(7, 8)]), (False, [])])
def test_root_leaves_a_log_to_the_user_of_its_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, replace: bool, owned: list[tuple[int, int]]
) -> None:
    """And a backup to nobody."""
    given: list[tuple[int, int]] = []
    status = os.stat_result((0o700, 1, 1, 2, 7, 8, 0, 0, 0, 0))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "fchown", lambda _, *owner: given.append(owner))
    monkeypatch.setattr(Path, "stat", lambda _: status)
    with new_file(tmp_path / "a.db", (lambda: None) if replace else None):
        pass
    assert given == owned
