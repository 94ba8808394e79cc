"""`pubsub salvage`: what is said of what was saved and lost, and when nothing is made."""

from __future__ import annotations

import json
import signal
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from broker.errors import StoreCorrupt, StoreFull
from broker.store.sqlite.files.file import DatabaseFile
from broker.store.sqlite.repair.lost import Lost
from cli.care import salvage as module
from cli.care.salvage import salvage
from cli.terminal.failure import CommandFailed, Exit
from cli.terminal.long_work import LongWork
from tests.support.messages import message
from tests.support.sqlite import change, opened

AT_US = 1_741_948_200_000_000  # 2025-03-14T10:30:00Z


@pytest.fixture
async def data_dir(tmp_path: Path) -> Path:
    """Its log lost the messages 7, 8 and, at its end, 3000."""
    directory = tmp_path / "data"
    directory.mkdir()
    async with opened(directory / "pubsub.db") as store:
        await store.append([message(str(n), at=AT_US + n * 1_000_000) for n in range(1, 3001)])
    change(directory / "pubsub.db", "DELETE FROM messages WHERE offset IN (7, 8, 3000)")
    return directory


def test_people_are_told_what_is_lost_and_what_is_saved(
    data_dir: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    to = data_dir.parent / "new" / "data"
    salvage(data_dir, to)
    out, err = capfd.readouterr()
    assert out.splitlines() == [
        "lost: offsets 7 to 8, published after 2025-03-14T10:30:06.000000Z"
        " and before 2025-03-14T10:30:09.000000Z",
        "lost: offset 3000, published after 2025-03-14T11:19:59.000000Z",
        f"saved in {to}/pubsub.db: 2,997 messages, 0 retained, 0 sessions; lost: 3 messages",
    ]
    assert err == ""


@pytest.mark.parametrize(
    ("until_us", "said"),
    [
        (1_000_000, "published at 1970-01-01T00:00:01.000000Z"),
        (None, "published after 1970-01-01T00:00:01.000000Z"),
        (
            2_000_000,
            "published after 1970-01-01T00:00:01.000000Z and before 1970-01-01T00:00:02.000000Z",
        ),
    ],
)
def test_what_lies_between_two_messages_of_one_moment_is_of_that_moment(
    until_us: int | None, said: str
) -> None:
    assert module._named(Lost(range(7, 8), 1_000_000, until_us)) == f"offset 7, {said}"


def test_a_program_gets_records(data_dir: Path, capfd: pytest.CaptureFixture[str]) -> None:
    to = data_dir.parent / "new"
    salvage(data_dir, to, json=True)
    lost, end, whole = map(json.loads, capfd.readouterr().out.splitlines())
    assert lost["lost"] == {
        "first": 7,
        "last": 8,
        "after": "2025-03-14T10:30:06.000000Z",
        "before": "2025-03-14T10:30:09.000000Z",
    }
    assert end["lost"] == {"first": 3000, "last": 3000, "after": "2025-03-14T11:19:59.000000Z"}
    assert whole == {
        "salvaged": f"{to}/pubsub.db",
        "messages": 2997,
        "retained": 0,
        "sessions": 0,
        "lost_messages": 3,
        "unreadable_pages": 0,
        "refused": 0,
    }


def test_a_log_that_is_there_is_not_overwritten(data_dir: Path) -> None:
    to = data_dir.parent / "new"
    salvage(data_dir, to)
    before = (to / "pubsub.db").read_bytes()
    for target in (to, data_dir):
        with pytest.raises(CommandFailed, match="is there already; name a new directory"):
            salvage(data_dir, target)
    assert (to / "pubsub.db").read_bytes() == before


def test_a_broker_has_to_be_stopped_first(data_dir: Path) -> None:
    file = DatabaseFile(data_dir / "pubsub.db")
    with pytest.raises(CommandFailed, match=r"a broker is running on .*; stop it with"):
        salvage(data_dir, data_dir.parent / "new")
    file.close()
    assert not (data_dir.parent / "new").exists()


def test_where_no_log_is_that_is_said(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match="no log at") as failed:
        salvage(tmp_path, tmp_path / "new")
    assert failed.value.code is Exit.NOTHING_THERE


def test_a_file_that_holds_nothing_of_a_log_makes_none(tmp_path: Path) -> None:
    (tmp_path / "pubsub.db").write_bytes(b"hello" * 2000)
    with pytest.raises(StoreCorrupt, match="nothing of a log is left in it"):
        salvage(tmp_path, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_full_disk_leaves_nothing(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    to = data_dir.parent / "new"
    connect = sqlite3.connect

    def small(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*arguments, **options)
        connection.execute("PRAGMA max_page_count = 50")
        return connection

    monkeypatch.setattr("sqlite3.connect", small)
    with pytest.raises(StoreFull, match=f"{to}/pubsub.db: no space left"):
        salvage(data_dir, to)
    assert not to.exists()


def test_ctrl_c_leaves_nothing(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    to = data_dir.parent / "new"
    step = LongWork.step

    def interrupted(work: LongWork, done: int, *rest: Any, **options: Any) -> None:
        if done == 30:
            signal.raise_signal(signal.SIGINT)
        step(work, done, *rest, **options)

    monkeypatch.setattr(LongWork, "step", interrupted)
    with pytest.raises(CommandFailed, match=f"interrupted: {to}/pubsub.db was not made"):
        salvage(data_dir, to)
    assert not to.exists()
