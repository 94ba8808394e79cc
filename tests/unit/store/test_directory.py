"""Who has the data directory, and what keeps a broker from having it."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from broker.config import LOCK
from broker.errors import ConfigError, StoreFull
from broker.store.directory import lock_data_dir


def test_it_is_made_for_its_owner_alone_and_says_who_has_it(tmp_path: Path) -> None:
    path = tmp_path / "above" / "data"
    with lock_data_dir(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
        assert (path / LOCK).read_text() == f"{os.getpid()}\n"
        with pytest.raises(ConfigError, match=rf"in use by another broker \(pid {os.getpid()}\)"):
            lock_data_dir(path)
    lock_data_dir(path).close()


def test_what_cannot_be_a_directory_is_said(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    with pytest.raises(ConfigError, match="cannot be written: "):
        lock_data_dir(tmp_path / "data")


@pytest.mark.parametrize("call", ["mkdir", "write"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_said_to_be_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(code, os.strerror(code))

    path = tmp_path / "data"
    with monkeypatch.context() as patch:
        patch.setattr(f"broker.store.directory.os.{call}", full)
        with pytest.raises(StoreFull, match="no space left for the log"):
            lock_data_dir(path)
    lock_data_dir(path).close()


def test_the_lock_is_for_its_owner_alone_as_who_may_read_it_could_hold_it(tmp_path: Path) -> None:
    (tmp_path / LOCK).write_text("1")
    (tmp_path / LOCK).chmod(0o644)
    for path in (tmp_path, tmp_path / "new"):
        with lock_data_dir(path):
            assert stat.S_IMODE((path / LOCK).stat().st_mode) == 0o600


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o620])
def test_what_others_may_read_or_change_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int
) -> None:
    for name, content in (("a.db", "x"), ("b.db", "x"), ("c.db", "x"), ("empty", "")):
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(mode)
    (tmp_path / "c.db").chmod(0o640)  # For a group that somebody chose.
    lock_data_dir(tmp_path).close()
    (said,) = caplog.messages
    exposed = f"{tmp_path}/a.db, {tmp_path}/b.db"
    assert said == f"others may read or change {exposed}: chmod 600 them"


def test_a_directory_where_others_may_replace_the_log_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tmp_path.chmod(0o755)
    lock_data_dir(tmp_path).close()
    assert caplog.messages == []
    tmp_path.chmod(0o777)
    lock_data_dir(tmp_path).close()
    assert caplog.messages == [
        f"others may replace what is in {tmp_path}/, and so the log: chmod go-w {tmp_path}"
    ]
