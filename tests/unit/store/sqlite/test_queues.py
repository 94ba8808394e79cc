"""Groups and dead letters, as the tables have them."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from broker.config import DATABASE
from broker.documents import Put
from broker.documents.queues import DeadLetterDocument
from broker.message import AgedUs, Offset
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
