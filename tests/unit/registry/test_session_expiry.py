from __future__ import annotations

import asyncio

from broker.config import Config
from broker.documents import Delete
from broker.registry.session_expiry import ENDED_AT_ONCE_MAX
from tests.support.world import Disk, Subscriber, running


async def test_sessions_that_expire_in_one_second_share_a_commit() -> None:
    async with running(Disk()) as world:
        for n in range(9):
            subscriber = Subscriber(world)
            await subscriber.open(str(n), expiry_s=100)
            subscriber.close()
            world.clock.advance(0.1)
        await world.settled()
        world.disk.commits.clear()
        world.clock.advance(98)
        for _ in range(40):
            world.clock.advance(0.1)
            await world.settled()
        assert world.sessions.expiry.count == 9
        assert len(world.disk.commits) <= 2


async def test_of_many_that_expire_at_once_a_part_is_ended_in_each_turn() -> None:
    """Or everybody would wait for all of them."""
    many = 2 * ENDED_AT_ONCE_MAX + 1
    async with running(Disk(), Config(sessions_max=many)) as world:
        for n in range(many):
            subscriber = Subscriber(world)
            await subscriber.open(str(n), expiry_s=100)
            subscriber.close()
        await world.settled()
        world.clock.advance(100)
        ended = []
        while world.sessions.kept.client_count:
            before = world.sessions.kept.client_count
            await asyncio.sleep(0)
            ended.append(before - world.sessions.kept.client_count)
            deletes = [o for _, made, _ in world.disk.commits for o in made if type(o) is Delete]
            assert many - world.sessions.kept.client_count - len(deletes) <= ENDED_AT_ONCE_MAX
        assert max(ended) == ENDED_AT_ONCE_MAX
        await world.settled()
        commits = [[type(o) for o in made].count(Delete) for _, made, _ in world.disk.commits]
        assert max(commits) == ENDED_AT_ONCE_MAX
        assert world.sessions.expiry.count == many
