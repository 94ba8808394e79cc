"""The spare file: room for removing, and for a start, on a disk that is full to the last byte."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from broker.errors import StoreFull
from broker.message import Offset
from broker.store.sqlite.files import opening, spare
from broker.store.sqlite.retention.trimming import Trimming
from broker.store.sqlite.store import SqliteStore
from tests.support.messages import numbered
from tests.support.sqlite import opened
from tests.support.stores import read_all


def full_while_there(path: Path, call: Callable[..., Any]) -> Callable[..., Any]:
    """The call, on a disk that is full while the spare file of the database is there."""

    def called(*args: Any, **kwargs: Any) -> Any:
        if spare.spare_file(path).exists():
            raise StoreFull(f"{path}: no space left for the log")
        return call(*args, **kwargs)

    return called


async def test_it_takes_up_room_once(sqlite: SqliteStore) -> None:
    await sqlite.removing.keep_spare()
    await sqlite.removing.keep_spare()
    taken = spare.spare_file(sqlite.path).stat()
    assert taken.st_size == spare.SPARE_BYTES
    assert taken.st_blocks * 512 >= spare.SPARE_BYTES
    assert taken.st_mode & 0o77 == 0
    assert spare.give_up(sqlite.path)
    assert not spare.give_up(sqlite.path)


def test_where_there_is_no_room_for_it_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*args: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", no_room)
    with pytest.raises(OSError, match="No space"):
        spare.keep(tmp_path / "pubsub.db")
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("call", ["trim_some", "move_log_start"])
async def test_messages_are_removed_on_a_full_disk(
    sqlite: SqliteStore, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    await sqlite.append(numbered(100))
    monkeypatch.setattr(*(Trimming, call, full_while_there(sqlite.path, getattr(Trimming, call))))
    await sqlite.removing.keep_spare()
    assert await sqlite.trim(Offset(51)) == 50
    assert len(await read_all(sqlite)) == 50
    assert not spare.spare_file(sqlite.path).exists()


async def test_without_it_they_are_not(
    sqlite: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any) -> None:
        raise StoreFull("no space left for the log")

    await sqlite.append(numbered(100))
    monkeypatch.setattr(Trimming, "move_log_start", full)
    with pytest.raises(StoreFull):
        await sqlite.trim(Offset(51))
    assert len(await read_all(sqlite)) == 100


async def test_a_start_uses_it_too(sqlite: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    await sqlite.append(numbered(10))
    await sqlite.removing.keep_spare()
    await sqlite.close()
    make = full_while_there(sqlite.path, opening._make_writer)
    monkeypatch.setattr(opening, "_make_writer", make)
    async with opened(sqlite.path) as store:
        assert len(await read_all(store)) == 10
    assert not spare.spare_file(sqlite.path).exists()
