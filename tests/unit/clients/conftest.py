from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.support.clients import NOTHING_TO_TELL
from tests.support.lines import Lines
from tests.support.world import Disk, World, running


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with running(Disk(), NOTHING_TO_TELL) as world:
        yield world


@pytest.fixture
def lines(world: World) -> Lines:
    return Lines(world)


@pytest.fixture
async def subscribed(lines: Lines) -> Lines:
    """A connection with subscriber `sub1`, who is subscribed to `t`."""
    lines.says("SUBSCRIBE t sub1")
    assert await lines.gets() == ["OK"]
    return lines
