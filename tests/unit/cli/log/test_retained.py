"""What is retained, on a database that the store wrote. What changes it: tests/e2e/test_history."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from broker.message import Message
from broker.store.sqlite.store import SqliteStore
from cli.log.history import Options
from cli.log.retained import of_topic, remove, show, undo
from cli.net.address import Address
from cli.terminal.failure import CommandFailed, Exit

NOW_US = time.time_ns() // 1000


def retained(topic: str, payload: bytes, expires_at_us: int | None = None) -> Message:
    return Message(topic, payload, 1, True, "p", NOW_US - 10_000_000, expires_at_us)


@pytest.fixture
async def data_dir(tmp_path: Path) -> Path:
    store = SqliteStore(tmp_path / "pubsub.db")
    await store.open()
    await store.append(
        [
            retained("b", b"1"),
            retained("a/x", b"off"),
            retained("gone", b"1"),
            Message("b", b"not retained", 1, False, "p", NOW_US),
            retained("b", b"2"),
            retained("gone", b""),
            retained("over", b"1", NOW_US - 5_000_000),
            retained("later", b"1", NOW_US + 3_600_000_000),
        ]
    )
    await store.close()
    return tmp_path


def options(data_dir: Path, *filters: str, **changes: object) -> Options:
    return Options(**{"data_dir": data_dir, "filters": filters, "last": None} | changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("filters", "said"),
    [
        (["nothing"], "nothing is retained on these topics; pubsub pub TOPIC MESSAGE --retain\n"),
        ([], "nothing is retained; pubsub pub TOPIC MESSAGE --retain\n"),
        (["b"], ""),
    ],
)
async def test_a_terminal_is_told_that_nothing_is_retained(
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    filters: list[str],
    said: str,
) -> None:
    store = SqliteStore(tmp_path / "pubsub.db")
    await store.open()
    if filters:
        await store.append([retained("b", b"1")])
    await store.close()
    show(options(tmp_path, *filters))
    assert capfd.readouterr().err == "", "nor is a pipe"
    monkeypatch.setattr("cli.terminal.output.to_terminal", lambda: True)
    show(options(tmp_path, *filters))
    assert capfd.readouterr().err == said


def test_what_is_retained_is_shown_by_topic(
    data_dir: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    show(options(data_dir, json=True))
    found = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [(one["topic"], one["payload"]) for one in found] == [
        ("a/x", "off"),
        ("b", "2"),
        ("later", "1"),
    ]
    show(options(data_dir, "a/#", "nothing"))
    (line,) = capfd.readouterr().out.splitlines()
    assert line.endswith("\ta/x\toff")


def test_one_topic(data_dir: Path) -> None:
    assert of_topic(data_dir, "b").payload == b"2"
    for topic in ("gone", "over", "nothing"):
        with pytest.raises(CommandFailed, match=f"nothing is retained on {topic}") as failed:
            of_topic(data_dir, topic)
        assert failed.value.code is Exit.NOTHING_THERE
    with pytest.raises(CommandFailed, match="is no topic") as failed:
        of_topic(data_dir, "a/#")
    assert failed.value.code is Exit.USAGE


class PublisherThatKeeps:
    """Stands where the publisher stands."""

    def __init__(self, *_: object) -> None:
        pass

    sent: list[tuple[Any, bool | None]]

    def open(self) -> None: ...

    def close(self) -> None: ...

    def wait(self) -> None: ...

    def send(self, fields: Any, *, retain: bool | None = None) -> None:
        self.sent.append((fields, retain))


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, bool | None]]:
    PublisherThatKeeps.sent = []
    monkeypatch.setattr("cli.log.republish.Republisher", PublisherThatKeeps)
    return PublisherThatKeeps.sent


def test_undo_publishes_what_was_retained_before(
    data_dir: Path, sent: list[tuple[Any, bool | None]]
) -> None:
    undo(data_dir, Address(), "b")
    undo(data_dir, Address(), "gone")
    undo(data_dir, Address(), "a/x")
    assert [(fields["topic"], fields.get("payload", ""), retain) for fields, retain in sent] == [
        ("b", "1", True),
        ("gone", "1", True),
        ("a/x", "", True),
    ]
    with pytest.raises(CommandFailed) as failed:
        undo(data_dir, Address(), "nothing")
    assert failed.value.code is Exit.NOTHING_THERE


def test_json_says_what_is_so_now(
    data_dir: Path, sent: list[tuple[Any, bool | None]], capfd: pytest.CaptureFixture[str]
) -> None:
    undo(data_dir, Address(), "b", json=True)
    undo(data_dir, Address(), "a/x", json=True)
    remove(data_dir, Address(), ["b"], json=True)
    assert [json.loads(line) for line in capfd.readouterr().out.splitlines()] == [
        {"topic": "b", "retained": True, "of": 1},
        {"topic": "a/x", "retained": False},
        {"topic": "b", "retained": False},
    ]
    assert len(sent) == 3


def test_nothing_is_removed_where_one_is_not_there(
    data_dir: Path, sent: list[tuple[Any, bool | None]]
) -> None:
    with pytest.raises(CommandFailed, match="nothing is retained on nothing"):
        remove(data_dir, Address(), ["b", "nothing"])
    assert sent == []
    remove(data_dir, Address(), ["b", "a/x"])
    assert sent == [({"topic": "b"}, True), ({"topic": "a/x"}, True)]
