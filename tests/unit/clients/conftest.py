from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.support.clients import NOTHING_TO_TELL
from tests.support.world import Disk, World, running


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with running(Disk(), NOTHING_TO_TELL) as world:
        yield world
