"""Groups and dead letters, as the tables have them."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from broker.config import DATABASE
from broker.documents import OwnerDocument, Put, SessionDocument, SubscriptionDocument
from broker.documents.queues import DeadLetterDocument
from broker.message import AgedUs, Offset, ServedUs, WallUs
from broker.store.sqlite import queues
from broker.store.sqlite.store import SqliteStore
from tests.support.messages import numbered

GROUPS = "$share/a/jobs", "$share/b/jobs"


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    store = SqliteStore(tmp_path / DATABASE)
    await store.open()
    letters = [
        DeadLetterDocument(group, Offset(n), 5, "no", "w", AgedUs(1))
        for group in GROUPS
        for n in (1, 2, 3)
    ]
    await store.append(numbered(3), [Put(letter) for letter in letters])
    await store.close()
    return tmp_path / DATABASE


async def test_dead_letters_come_in_pages_each_once(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, most in (("PAGE", 2), ("PAGE_BYTES_MAX", 0)):
        monkeypatch.setattr(queues, name, most)
        found, after = [], ("", -1)
        with closing(sqlite3.connect(path)) as log:
            while page := queues.letters(log, after):
                assert len(page) <= 2
                found += [(each["group"], each["offset"]) for each in page]
                after = found[-1]
        assert found == [(group, n) for group in GROUPS for n in (1, 2, 3)]


async def test_a_group_that_has_only_dead_letters_is_named(path: Path) -> None:
    with closing(sqlite3.connect(path)) as log:
        assert [*queues.groups(log)] == []
        assert queues.names(log) == [*GROUPS]
        assert queues.unread(log, {"cursor": 1, "filter": "#"}) == 2


@pytest.mark.parametrize("shared", [False, True])
async def test_members_are_counted_of_a_log_that_brokers_share(
    tmp_path: Path, *, shared: bool
) -> None:
    """Which has the session of each worker that is connected to any of them."""
    group, absent = GROUPS[0], "away"
    store = SqliteStore(tmp_path / DATABASE)
    await store.open()
    workers = [
        SessionDocument(each, 60, WallUs(1), ServedUs(9) if each == absent else None)
        for each in ("here", "elsewhere", absent)
    ]
    subscriptions = [
        SubscriptionDocument(each.client_id, group, 1, False, False, 0, None, Offset(0))
        for each in workers
    ]
    owners = [OwnerDocument(group, "b1", 1)] if shared else []
    sessions = [SessionDocument(group, 60, WallUs(1), None), *workers]
    puts = [*map(Put, sessions), *map(Put, subscriptions), *map(Put, owners)]
    await store.append([], puts)
    await store.close()
    with closing(sqlite3.connect(tmp_path / DATABASE)) as log:
        assert [each["members"] for each in queues.groups(log)] == [2 if shared else 0]
