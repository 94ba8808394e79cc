"""Where in the log a replay or a seek begins."""

from __future__ import annotations

import pytest

from broker.message import Offset
from broker.replay.finding import begin_after
from broker.replay.spec import AtOffset, AtTime, Earliest, Last, Latest, Resume, Start
from broker.store.memory import MemoryStore
from tests.support.messages import message


@pytest.fixture
async def store() -> MemoryStore:
    """Offsets 1..6, on `a` and `b` in turn, published at second 10, 20, ...; 1 is removed."""
    store = MemoryStore()
    await store.open()
    await store.append([message(str(n), "ba"[n % 2], at=n * 10) for n in range(1, 7)])
    await store.trim(Offset(2))
    return store


@pytest.mark.parametrize(
    ("start", "after"),
    [
        (Earliest(), 1),
        (Latest(), 6),
        (Resume(), 3),
        (AtOffset(Offset(4)), 3),
        (AtOffset(Offset(0)), 0),
        (AtOffset(Offset(99)), 6),
        (AtTime(40), 3),
        (AtTime(41), 4),
        (AtTime(1000), 6),
        (Last(1), 4),
        (Last(2), 2),
    ],
)
async def test_it_begins_after(store: MemoryStore, start: Start, after: int) -> None:
    assert await begin_after(store, start, ["a"], here=Offset(6), cursor=Offset(3)) == after
