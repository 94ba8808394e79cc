"""Which database a command reads, and who is kept from it meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.errors import StoreInUse
from broker.store.sqlite.file import DatabaseFile
from cli import database
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
