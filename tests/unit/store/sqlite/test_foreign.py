"""What another program writes into the database is told, once."""

from __future__ import annotations

import sqlite3

import pytest

from broker.documents import CursorDocument, Put, SessionDocument
from broker.message import Offset
from broker.store.sqlite.store import SqliteStore
from tests.support.messages import message, numbered
from tests.support.sqlite import ask, change


async def test_an_update_of_a_cursor_is_told_with_the_command_that_does_it(
    sqlite: SqliteStore, caplog: pytest.LogCaptureFixture
) -> None:
    cursor = CursorDocument("sub1", Offset(1), Offset(1), 1, b"")
    await sqlite.append([message()], [Put(SessionDocument("sub1", 60, 1, None)), Put(cursor)])
    await sqlite.forget_expired(1)
    assert caplog.messages == []
    change(sqlite.path, "UPDATE cursors SET offset = 0")
    await sqlite.forget_expired(2)
    await sqlite.forget_expired(3)
    [told] = caplog.messages
    assert "another program has written into pubsub.db" in told
    assert "pubsub subscribers seek" in told


async def test_readers_checkpoints_and_our_own_commits_are_no_foreign_writes(
    sqlite: SqliteStore, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(4):
        await sqlite.append(numbered(9_000, lambda n: f"topic/{n}"))
        assert ask(sqlite.path, "SELECT max(offset) FROM messages") != []
        await sqlite.forget_expired(1)
    with pytest.raises(sqlite3.OperationalError):
        change(sqlite.path, "UPDATE lag SET nothing = 1")
    await sqlite.forget_expired(2)
    assert [text for text in caplog.messages if "another program" in text] == []
