from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from broker.config import Config
from tests.support.world import Disk, Subscriber, World, running, subscription


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    """With bounds so small that a few messages go beyond them."""
    monkeypatch.setattr("broker.delivery.readers.READ_MESSAGES_MAX", 6)
    monkeypatch.setattr("broker.delivery.retained.READ_MESSAGES_MAX", 6)
    monkeypatch.setattr("broker.delivery.recent.RECENT_MESSAGES_MAX", 8)
    config = Config(outbox_messages_max=10, outbox_bytes_max=1000)
    async with running(Disk(), config) as world:
        yield world


@pytest.fixture
async def sub(world: World) -> Subscriber:
    """Subscribed to `t`."""
    subscriber = Subscriber(world)
    await subscriber.open()
    subscriber.subscribe(subscription())
    return subscriber
