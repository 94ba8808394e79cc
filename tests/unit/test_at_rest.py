"""Subscribers of a log that no broker runs on."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from broker import at_rest
from broker.documents import CursorDocument, Put, SessionDocument, SubscriptionDocument
from broker.documents.queues import GroupDocument
from broker.errors import CommandRefused, ConfigError, NotFound
from broker.message import Offset, WallUs
from broker.store.directory import lock_data_dir
from broker.store.sqlite.store import SqliteStore
from tests.support.groups import GROUP
from tests.support.messages import numbered
from tests.support.world import subscription


@pytest.fixture
async def data_dir(tmp_path: Path) -> Path:
    """As a broker left it that was killed: `sub1` was connected, and acknowledged 3 of 10."""
    store = SqliteStore(tmp_path / "pubsub.db")
    await store.open()
    cursor = CursorDocument("sub1", Offset(3), Offset(3), 4, b"")
    session = SessionDocument("sub1", 100, 1, None)
    await store.append(numbered(10), [Put(session), Put(subscription("t")), Put(cursor)])
    await store.close()
    return tmp_path


async def test_who_looks_sees_it_and_changes_nothing(data_dir: Path) -> None:
    path = data_dir / "pubsub.db"
    before = path.read_bytes()
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
        overview = at_rest.overview(connection)
        [row] = (await overview.page()).rows
        one = await overview.one("sub1", WallUs(0))
        with pytest.raises(NotFound):
            await overview.one("sub2", WallUs(0))
    assert row.lag is not None
    assert (row.connected, row.lag.messages, row.cursor) == (False, 7, 3)
    assert one["lag"] == 7
    assert path.read_bytes() == before


async def test_what_is_done_is_there_for_the_next_broker(data_dir: Path) -> None:
    async with at_rest.administration(data_dir) as administration:
        moved = await administration.seek("sub1", "9")
        await administration.fork("sub1", "copy")
    assert (moved.skipped, moved.connected) == (5, False)
    async with at_rest.administration(data_dir) as administration:
        removed = await administration.remove("sub1")
    assert removed.unread == 2
    store = SqliteStore(data_dir / "pubsub.db")
    await store.open()
    cursor = await store.get(CursorDocument, ("copy",))
    assert cursor is not None
    assert cursor.offset == 8
    assert [s.filter for s in await store.scan(SubscriptionDocument)] == ["t"]
    assert [s.client_id for s in await store.scan(SessionDocument)] == ["copy"]
    assert store.high_watermark == 10
    await store.close()


async def test_a_group_that_was_made_to_stay_stays(data_dir: Path) -> None:
    store = SqliteStore(data_dir / "pubsub.db")
    await store.open()
    session, group = SessionDocument(GROUP, 100, 1, None), GroupDocument(GROUP, 5, 1, 1, 1, 1)
    await store.transact([Put(session), Put(group)])
    await store.close()
    async with at_rest.administration(data_dir) as administration:
        with pytest.raises(CommandRefused, match="pubsub group rm"):
            await administration.remove(GROUP)


async def test_a_log_that_a_broker_has_is_left_to_it(data_dir: Path) -> None:
    with lock_data_dir(data_dir), pytest.raises(ConfigError, match="in use"):
        async with at_rest.administration(data_dir):
            pass
