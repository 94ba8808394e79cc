"""Which database a command reads, and who is kept from it meanwhile."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from broker.errors import ConfigError, StoreDenied, StoreInUse
from broker.store.sqlite.files.file import DatabaseFile
from cli.log import database
from cli.terminal.failure import CommandFailed
from tests.support.messages import numbered
from tests.support.sqlite import opened


def nobody(_: object) -> None:
    """Watches no connection."""


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    path = tmp_path / "pubsub.db"
    async with opened(path) as store:
        await store.append(numbered(3000))
    return path


def test_a_data_directory_means_its_log(tmp_path: Path) -> None:
    assert database.database_of(tmp_path) == tmp_path / "pubsub.db"
    assert database.database_of(tmp_path / "copy.db") == tmp_path / "copy.db"


def test_no_broker_begins_on_a_log_that_is_looked_after(path: Path) -> None:
    with database.looking_after(path, nobody) as log, database.looking_after(path, nobody) as other:
        assert log.at_rest
        assert other.at_rest
        assert log.bytes == path.stat().st_size
        with pytest.raises(StoreInUse, match="or by a command that is at work on it"):
            DatabaseFile(path)
    DatabaseFile(path).close()


@pytest.mark.parametrize(
    ("cause", "raised", "says"),
    [
        (PermissionError(errno.EACCES, "Permission denied"), StoreDenied, "cannot be written"),
        (OSError(errno.EROFS, "Read-only file system"), StoreDenied, "cannot be written"),
        (BlockingIOError(errno.EWOULDBLOCK, "held"), CommandFailed, "a broker is running"),
        (FileExistsError(errno.EEXIST, "File exists"), ConfigError, "data_dir"),
    ],
)
def test_a_directory_that_cannot_be_had_is_refused_for_what_it_is(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cause: OSError,
    raised: type[Exception],
    says: str,
) -> None:
    def lock(path: Path) -> None:
        raise ConfigError("data_dir", str(path), "no") from cause

    monkeypatch.setattr("broker.store.directory.lock_data_dir", lock)
    with pytest.raises(raised, match=says), database.stopped(tmp_path):
        pass


def test_a_directory_whose_broker_is_stopped_is_kept_from_others(path: Path) -> None:
    with database.stopped(path.parent):
        with pytest.raises(StoreInUse):
            DatabaseFile(path)
        with (
            pytest.raises(CommandFailed, match="a broker is running"),
            database.stopped(path.parent),
        ):
            pass
    DatabaseFile(path).close()
