"""`pubsub log topics` and `pubsub log --latest`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from broker.message import Message
from broker.store.sqlite.store import SqliteStore
from cli.log.history import Options
from cli.log.show_topics import show, show_latest
from cli.terminal.failure import CommandFailed, Exit

TIME_US = 1_741_948_200_000_000  # 2025-03-14T10:30:00Z


@pytest.fixture
async def data_dir(tmp_path: Path) -> Path:
    store = SqliteStore(tmp_path / "pubsub.db")
    await store.open()
    rows = [("b", b"one"), ("a", b"1"), ("a", b"2"), ("c", b"x" * 50)]
    await store.append(
        [
            Message(topic, payload, 1, False, "p", TIME_US + n * 60_000_000)
            for n, (topic, payload) in enumerate(rows)
        ]
    )
    await store.close()
    return tmp_path


def test_a_pipe_gets_a_line_per_topic(data_dir: Path, capfd: pytest.CaptureFixture[str]) -> None:
    show(data_dir, ["a", "b"], sort="topic", json=False)
    assert capfd.readouterr().out.splitlines() == [
        "a\t2\t2\t2025-03-14T10:31:00.000000Z\t2025-03-14T10:32:00.000000Z",
        "b\t1\t3\t2025-03-14T10:30:00.000000Z\t2025-03-14T10:30:00.000000Z",
    ]


@pytest.mark.parametrize(
    ("sort", "order"), [("topic", "abc"), ("messages", "bca"), ("bytes", "abc"), ("last", "bac")]
)
def test_the_largest_comes_last(
    data_dir: Path, capfd: pytest.CaptureFixture[str], sort: str, order: str
) -> None:
    show(data_dir, [], sort=sort, json=True)
    records = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert "".join(record["topic"] for record in records) == order
    assert records[order.index("a")] == {
        "topic": "a",
        "messages": 2,
        "bytes": 2,
        "first": 2,
        "first_at": "2025-03-14T10:31:00.000000Z",
        "last": 3,
        "last_at": "2025-03-14T10:32:00.000000Z",
    }


@pytest.mark.parametrize(
    ("as_of", "values"),
    [
        (None, [("a", "2"), ("b", "one"), ("c", "x" * 50)]),
        ("@2025-03-14T10:31:30Z", [("a", "1"), ("b", "one")]),
        ("2025-03-14T10:32:00Z", [("a", "2"), ("b", "one")]),
    ],
)
def test_the_last_of_each_topic_as_of_a_time(
    data_dir: Path,
    capfd: pytest.CaptureFixture[str],
    as_of: str | None,
    values: list[tuple[str, str]],
) -> None:
    show_latest(Options(data_dir=data_dir, filters=(), last=None, latest=True, as_of=as_of))
    lines = [line.split("\t") for line in capfd.readouterr().out.splitlines()]
    assert [(line[4], line[5]) for line in lines] == values


def test_topics_that_are_not_there_are_told_on_a_terminal(
    data_dir: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    latest = Options(data_dir=data_dir, filters=("nothing",), last=None)
    for terminal, said in ((False, ""), (True, "no messages on these topics\n")):
        monkeypatch.setattr("cli.terminal.output.to_terminal", lambda at=terminal: at)
        show(data_dir, ["nothing"], sort="topic", json=False)
        assert capfd.readouterr() == ("", said)
        show_latest(latest)
        assert capfd.readouterr() == ("", said)


def test_what_is_no_time(data_dir: Path) -> None:
    with pytest.raises(CommandFailed, match="--as-of 'noon' is no TIME") as failed:
        show_latest(Options(data_dir=data_dir, filters=(), last=None, latest=True, as_of="noon"))
    assert failed.value.code is Exit.USAGE
