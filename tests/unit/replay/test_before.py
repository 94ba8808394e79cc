"""Before: from the words of `pubsub log trim --before` to an offset."""

from __future__ import annotations

import pytest

from broker.clock import US
from broker.errors import ReplaySpecInvalid
from broker.message import WallUs
from broker.replay.before import first_kept
from broker.store.memory import MemoryStore
from tests.support.messages import message

NOW_US = WallUs(100 * US)


@pytest.fixture
async def log() -> MemoryStore:
    """Offsets 1 to 6, published at 10, 20, .. 60 s; those of `t` are 1, 3, 5, 6."""
    store = MemoryStore()
    await store.open()
    topics = ["t", "x", "t", "x", "t", "t"]
    await store.append([message(topic=t, at=n * 10 * US) for n, t in enumerate(topics, 1)])
    return store


@pytest.mark.parametrize(
    ("spec", "filters", "offset"),
    [
        ("earliest", [], 1),
        ("latest", [], 7),
        ("4", [], 4),
        ("@1970-01-01T00:00:31Z", [], 4),
        ("-2", [], 5),
        ("-3", ["t"], 3),
    ],
)
async def test_the_place_before_which_messages_go(
    log: MemoryStore, spec: str, filters: list[str], offset: int
) -> None:
    assert await first_kept(log, spec, filters, NOW_US) == offset


@pytest.mark.parametrize("spec", ["3:5", "resume", "", "soon"])
async def test_what_is_no_such_place_is_refused(log: MemoryStore, spec: str) -> None:
    with pytest.raises(ReplaySpecInvalid):
        await first_kept(log, spec, [], NOW_US)
