"""What the log knows of each topic, on databases that the store wrote."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from broker.message import Message, Offset
from broker.store.sqlite.store import SqliteStore
from cli.log import topics as module
from cli.log.topics import TopicFigures, TopicsOfLog


def topic_of(number: int) -> str:
    if number == 1100:
        return "brief"
    return "rare" if number in (3, 2500) else ("bulk/a", "bulk/b", "other")[number % 3]


@pytest.fixture(params=[0, 1500])
async def log_start(request: pytest.FixtureRequest, tmp_path: Path) -> int:
    """Of a log of 5000 messages at `tmp_path`."""
    store = SqliteStore(tmp_path / "pubsub.db")
    await store.open()
    await store.append(
        [Message(topic_of(n), b"%d" % n, 1, False, "p", n * 1_000_000) for n in range(1, 5001)]
    )
    if request.param:
        await store.trim(Offset(request.param))
    await store.close()
    return request.param or 1


@contextmanager
def opened(directory: Path, *filters: str) -> Iterator[TopicsOfLog]:
    with closing(sqlite3.connect(directory / "pubsub.db", isolation_level=None)) as connection:
        yield TopicsOfLog(connection, filters)


def expected(topic: str, log_start: int) -> TopicFigures:
    numbers = [n for n in range(log_start, 5001) if topic_of(n) == topic]
    size = sum(len(str(n)) for n in numbers)
    first, last = numbers[0], numbers[-1]
    return TopicFigures(topic, len(numbers), size, first, first * 1_000_000, last, last * 1_000_000)


@pytest.mark.parametrize("sought_max", [0, 200])
@pytest.mark.parametrize("without_figures", [(), (2, 3), (0, 1, 2, 3, 4)])
def test_each_topic_has_its_figures(
    tmp_path: Path,
    log_start: int,
    without_figures: tuple[int, ...],
    sought_max: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where an older program wrote blocks without them."""
    monkeypatch.setattr(module, "SOUGHT_MAX", sought_max)
    with opened(tmp_path) as topics:
        for block in without_figures:
            topics._connection.execute("DELETE FROM blocks WHERE block = ?", (block,))
            topics._connection.execute(
                "UPDATE topic_blocks SET messages = NULL WHERE block = ?", (block,)
            )
        names = [*(["brief"] if log_start == 1 else []), "bulk/a", "bulk/b", "other", "rare"]
        assert topics.figures() == [expected(name, log_start) for name in names]


@pytest.mark.parametrize("sought_max", [0, 200])
def test_filters_choose(
    tmp_path: Path, log_start: int, sought_max: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SOUGHT_MAX", sought_max)
    with opened(tmp_path, "bulk/+", "rare") as topics:
        assert [found.topic for found in topics.figures()] == ["bulk/a", "bulk/b", "rare"]
    with opened(tmp_path, "nothing") as topics:
        assert topics.figures() == []


@pytest.mark.parametrize("sought_max", [200, 0])
@pytest.mark.parametrize("through", [10_000, 5000, 2501, 2499, 1600, 1024, 1023])
def test_the_last_of_each_topic_at_any_place(
    tmp_path: Path,
    log_start: int,
    through: int,
    sought_max: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "SOUGHT_MAX", sought_max)
    monkeypatch.setattr(module, "PAGE_TOPICS", 2)
    last: dict[str, int] = {}
    for number in range(log_start, min(through, 5000) + 1):
        last[topic_of(number)] = number
    with opened(tmp_path) as topics:
        pages = [*topics.latest(through)]
    found = [message for page in pages for message in page]
    assert [(message.topic, message.offset) for message in found] == sorted(last.items())
    assert all(len(page) <= 2 for page in pages)
