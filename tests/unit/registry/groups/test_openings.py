"""A group is opened for its first member, and closed when the last one has left."""

from __future__ import annotations

import pytest

from broker.errors import StoreUnavailable
from broker.registry.groups.lent import Lent
from tests.support.groups import GROUP, member, numbers, publish
from tests.support.world import Disk, running


async def test_a_group_that_nobody_is_a_member_of_waits_in_the_log() -> None:
    async with running(Disk()) as world:
        first = await member(world, "one", expiry_s=100)
        first.close()
        await world.settled()
        assert world.groups.open_count == 0
        await publish(world, 1, 2)
        second = await member(world, "two")
        await world.settled()
        assert numbers(second) == [1, 2]


async def test_a_group_that_cannot_be_opened_is_opened_by_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running(Disk()) as world:
        (await member(world, "one", expiry_s=100)).close()
        await world.settled()

        async def cannot(name: str) -> Lent:
            raise StoreUnavailable("the disk")

        with monkeypatch.context() as patched:
            patched.setattr(world.groups.lending, "found", cannot)
            with pytest.raises(StoreUnavailable):
                await member(world, "two")
        await world.settled()
        assert world.sessions.is_absent(GROUP)
        third = await member(world, "three")
        await publish(world, 1, 2)
        assert numbers(third) == [1, 2]
