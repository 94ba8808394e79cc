"""What is asked of groups and dead letters: which one is meant, and how it is shown."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from broker.config import DATABASE
from broker.documents import Put
from broker.documents.queues import DeadLetterDocument
from broker.errors import TopicFilterInvalid
from broker.message import AgedUs, Offset
from broker.store.sqlite.store import SqliteStore
from cli.operate.queues import change_letters, create, resolve, rm, show
from cli.terminal.failure import CommandFailed, Exit
from tests.support.messages import numbered

GONE = "$share/a/jobs"
GROUPS = ["$share/a/jobs", "$share/b/jobs", "$share/b/mail/#"]


def test_a_bare_name_is_enough_where_one_filter_has_it() -> None:
    assert resolve("a", None, GROUPS) == "$share/a/jobs"
    assert resolve("b", "mail/#", GROUPS) == "$share/b/mail/#"
    assert resolve("$share/b/jobs", None, GROUPS) == "$share/b/jobs"


@pytest.mark.parametrize(
    ("name", "topic_filter", "code"),
    [("b", None, Exit.USAGE), ("c", None, Exit.NOTHING_THERE), ("a", "x", Exit.NOTHING_THERE)],
)
def test_else_it_is_refused(name: str, topic_filter: str | None, code: Exit) -> None:
    """[MQTT 5, 4.8.2]"""
    with pytest.raises(CommandFailed) as refused:
        resolve(name, topic_filter, GROUPS)
    assert refused.value.code is code


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """One that no broker has, with three dead letters of a group that is gone."""

    async def make() -> None:
        store = SqliteStore(tmp_path / DATABASE)
        await store.open()
        letters = [DeadLetterDocument(GONE, Offset(n), 5, "no", "w", AgedUs(1)) for n in (1, 2, 3)]
        await store.append(numbered(3), [Put(letter) for letter in letters])
        await store.close()

    asyncio.run(make())
    return tmp_path


def kept(data_dir: Path, table: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(data_dir / DATABASE)) as connection:
        return connection.execute(f"SELECT * FROM {table}").fetchall()


def test_at_rest_dead_letters_are_given_back_and_dropped(log: Path) -> None:
    with pytest.raises(CommandFailed, match="gone"):
        change_letters(log, "redrive", "a", None, None, json=True)
    create(log, "a", "jobs", start=None, asked={}, json=True)
    change_letters(log, "redrive", "a", 2, None, json=True)
    assert [row[2:4] for row in kept(log, "retries")] == [(2, 0)]
    with pytest.raises(CommandFailed) as none:
        change_letters(log, "drop", "a", 2, None, json=True)
    assert none.value.code is Exit.NOTHING_THERE
    change_letters(log, "drop", "a", None, None, json=True)
    assert kept(log, "dead_letters") == []


def test_at_rest_a_group_is_made_and_removed(
    log: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    asked = {"attempts": "7", "lease_ms": "2000"}
    create(log, "new", "t/#", start="earliest", asked=asked, json=True)
    assert json.loads(capsysbinary.readouterr().out)["begins_at"] == 1
    show(log, "new", None, json=True)
    shown = json.loads(capsysbinary.readouterr().out)
    assert (shown["made_by"], shown["attempts"], shown["lease_s"]) == ("command", 7, 2)
    rm(log, "new", None, json=True)
    assert kept(log, "group_settings") == []
    with pytest.raises(CommandFailed, match="no group"):
        show(log, "new", None, json=True)


@pytest.mark.parametrize(
    ("asked", "topic_filter"),
    [
        ({"attempts": "0"}, "jobs"),
        ({"lease_ms": "0"}, "jobs"),
        ({"backoff_first_ms": "5", "backoff_max_ms": "4"}, "jobs"),
        ({}, "$share/x/jobs"),
        ({}, "$replay/earliest/jobs"),
        ({}, "$delayed/5/jobs"),
        ({}, "jobs/#/a"),
        ({}, "jobs/\x07"),
        ({}, ""),
    ],
)
def test_what_can_be_no_group_is_wrong_usage(
    log: Path, asked: dict[str, str], topic_filter: str
) -> None:
    with pytest.raises((CommandFailed, TopicFilterInvalid)) as refused:
        create(log, "a", topic_filter, start=None, asked=asked, json=True)
    assert getattr(refused.value, "code", Exit.USAGE) is Exit.USAGE
    assert kept(log, "group_settings") == []


def test_where_there_is_no_log_no_group_is_made(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match="no log"):
        create(tmp_path, "a", "jobs", start=None, asked={}, json=True)
    assert [*tmp_path.iterdir()] == []
